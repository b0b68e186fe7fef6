"""Information in the names of files and folders about the network inside: the expert, and the number of steps it is
distilled to. One rule each, for weights and LoRA files alike.

Words with another meaning in ordinary names do not count: ``low_light``, ``high_heels`` and ``highres`` are not
experts, ``style-step00003000`` and ``v2-step-500`` count training steps. Ambiguous names do not count either, so that
the caller can ask the user.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

#: the two networks of two-expert models; the one for the noisy steps comes first
EXPERTS = ("high_noise", "low_noise")

#: metadata key of a converted file: the file name that marked the network as distilled, either that of a LoRA file
#: merged into it, or its own before the conversion
DISTILLED_BY = "lightx2v_distilled_by"

#: spellings of the words in the full name of an expert, such as ``hi noise``
_SPELLINGS = {"high": "(?:high|hi|h)", "low": "(?:low|lo|l)"}
#: words that may follow an expert's word at the end of a name: versions, precisions, programs, sizes, training steps
_TECHNICAL = re.compile(
    r"(?:v?\d+|v\d+[a-z]{0,2}|\d+(?:k|p|bit|ep|epochs?|steps?)|\d+x\d+|[a-z]?\d+b|wan\d*|[a-z]{1,3}2v|moe"
    r"|(?:bf|fp|f|int|nf|mxfp|nvfp|q|iq|w|u)\d+\w{0,7}|e\dm\d\w{0,2}|bfloat16|float(?:8|16|32)|mixed|scaled?|tensorwise"
    r"|[kmsl]|xs|gguf|quant(?:ized)?|kj|kijai|comfy(?:ui)?|lora|lokr|loha|dora|lycoris|adapter|merged?|models?|unet|dit"
    r"|transformer|expert|weights?|ckpt|checkpoint|safetensors|diffusion|pytorch|ema|final|latest|pruned|split|blocks?"
    r"|of|copy|beta|(?:rank|dim|alpha|r|e|ep|epochs?|s|steps?|seed|ver|version)\d*|lightx2v|lightning|seko|cfg"
    r"|distill(?:ed)?)",
    re.IGNORECASE,
)
#: words that form an ordinary expression with a preceding ``high`` or ``low``
_ORDINARY = (
    r"(?:rank\d*|v?ram|res|resolution|poly|steps?|strength|light(?:s|ing)?|lit|angles?|heels?|keys?|contrast|details?"
    r"|detailed|definition|quality|speed|motion|shots?|fps|frames?|fashion|fantasy|end|school|tech|rise|waist(?:ed)?|cut"
    r"|tide|tower|ground|tops?|jump|kick|life|fi|fidelity|pass|budget|saturation|exposure|density|levels?|freq(?:uency)?"
    r"|tone|dynamic|bit|bitrate|rate|cfg|socks|boots|rider|fade|collar|neck)"
)
#: maximum length of a name that can claim an expert: file names are shorter, titles in metadata may be any length
_LONGEST = 500
#: text between the names of two experts when both are meant
_BETWEEN = r" (?:and |or |to |plus |with |n )?"

#: a number of sampling steps: one digit before the word, and at most a separator after it. ``v2-step-500`` starts with
#: a version, ``2_step_500`` with another number: both count training steps, and so does ``1000-steps``.
_STEPS = re.compile(
    r"(?<!\d)(?<!(?<!\d)v)(?<!\d\.)(?:([1-9])steps?(?:(?=v\d)|(?![a-z0-9]))"
    r"|(?<!(?<!\d)\d[._-])([1-9])[ _-]steps?(?![a-z0-9]|[ ._-]\d+(?![a-z0-9])))"
)
#: the other marker in names of distilled networks; ``undistilled``, ``de-distill`` and ``distillery`` do not count
_DISTILLED = re.compile(
    r"(?<!un)(?<!de)(?<!non)(?<!(?<![a-z])de[ _-])(?<!(?<![a-z])no[ _-])(?<!(?<![a-z])not[ _-])(?<!(?<![a-z])non[ _-])"
    r"distil(?:l|led|lation)?(?:v\d+)?(?![a-z])"
)


def sampling_steps(name: str) -> int | None:
    """Parse the number of sampling steps in the name of a file or folder, 1 to 9 (``4step``, ``4-steps-lora``).

    Returns ``None`` if there is none. A number after the word counts training steps.
    """
    match = _STEPS.search(_parted(name).lower())
    return int(match[1] or match[2]) if match else None


def says_distilled(name: str) -> bool:
    """Return whether the name of a file or folder marks a network as distilled: by a number of sampling steps, or by
    the word (``StepDistill``)."""
    return sampling_steps(name) is not None or bool(_DISTILLED.search(_parted(name).lower()))


def distilled_by(metadata: Mapping[str, str]) -> str:
    """Return the file name that marked a network as distilled, as recorded by a conversion; empty if there is none."""
    name = metadata.get(DISTILLED_BY, "")
    return name if says_distilled(name) else ""


def named_expert(name: str, experts: Sequence[str] = EXPERTS, beside: Collection[str] = ()) -> str | None:
    """Return which of ``experts`` (names such as ``high_noise``) the name of a file (without suffix) or folder claims.

    Returns ``None`` if it claims none or several. A name claims an expert by its full name in any spelling
    (``HighNoise``, ``high_noise_model``), by its initials (``HN``), by its distinguishing word at the end, followed by
    nothing but versions, precisions and the like (``t2v_HIGH_bf16``, ``t2vHighV20``), or by that word anywhere if the
    same name with the other expert's word is among ``beside``, the other names in the same folder.
    """
    if len(name) > _LONGEST:
        return None
    own = [_own_word(expert, experts) for expert in experts]
    text = _words(name, experts, own)
    claimed = set()
    for number, expert in enumerate(experts):
        for start in _claims(text, expert, own[number]):
            claimed.add(expert)
            before = text[:start].lower()
            # high_and_low_noise is for both
            claimed |= {
                experts[at] for at, word in enumerate(own) if re.search(rf"\b{word}{_BETWEEN}$", before)
            }
    if not claimed and beside:
        others = {_words(other, experts, own).lower() for other in beside}
        claimed = {
            expert for expert, word in zip(experts, own, strict=True) if _of_a_pair(text, word, own, others)
        }
    return claimed.pop() if len(claimed) == 1 else None


def _claims(text: str, expert: str, word: str) -> Iterator[int]:
    """Yield the positions at which a name, split by ``_words``, claims an expert."""
    parts = expert.split("_")
    if len(parts) > 1:
        spelled = " ?".join(_SPELLINGS.get(part, re.escape(part)) for part in parts)
        yield from (match.start() for match in re.finditer(rf"(?i)\b{spelled}\b", text))
        initials = re.escape("".join(part[0] for part in parts))
        for match in re.finditer(rf"(?i)\b{initials}\b", text):
            if match.group().isupper() or _technical(text[match.end() :]):
                yield match.start()
    for match in re.finditer(rf"(?i)\b{re.escape(word)}\b(?! {_ORDINARY}\b)", text):
        if _technical(text[match.end() :]):
            yield match.start()


def _technical(rest: str) -> bool:
    """Return whether the words at the end of a name are only versions, precisions and the like."""
    return all(_TECHNICAL.fullmatch(word) for word in rest.split())


def _of_a_pair(text: str, word: str, own: Sequence[str], others: Collection[str]) -> bool:
    """Return whether ``others`` contains the same name with another expert's word in place of this one's."""
    lower = text.lower()
    return any(
        f"{lower[: match.start()]}{other}{lower[match.end() :]}" in others
        for match in re.finditer(rf"\b{re.escape(word)}\b(?! {_ORDINARY}\b)", lower)
        for other in own
        if other != word
    )


def _own_word(expert: str, experts: Sequence[str]) -> str:
    """Return the word that distinguishes an expert from the others: ``high``."""
    others = {word for other in experts if other != expert for word in other.split("_")}
    return next((word for word in expert.split("_") if word not in others), expert)


def _parted(name: str) -> str:
    """Insert spaces between lower- and upper-case letters: ``StepDistill`` becomes two words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


def _words(name: str, experts: Sequence[str], own: Sequence[str]) -> str:
    """Split a name into words, joined by single spaces: at separators, at changes of case (``t2vHighV20``: t2v, High,
    V20), and between a digit and an expert's word (``v22high``)."""
    telling = "|".join(map(re.escape, (*(expert.replace("_", "") for expert in experts), *own)))
    parted = re.sub(r"(?<=[A-Z0-9])(?=[A-Z][a-z])", " ", _parted(name))
    parted = re.sub(rf"(?i)(?<=\d)(?=(?:{telling})(?![a-z]))", " ", parted)
    return " ".join(re.sub(r"[^A-Za-z0-9]+", " ", parted).split())
