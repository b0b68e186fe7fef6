"""Metrics of the prose: docstrings that start with a verb, and phrases that are unusual in the field.

python tools/prose.py                 metrics of this tree
python tools/prose.py PATH ...        metrics of other trees or files, such as those of another project
python tools/prose.py --check [PATH]  list all banned phrases; exit status 1 if there is one (`tox -e lint`)
python tools/prose.py --nouns PATH    list the docstrings of functions that do not start with a verb

A function's docstring starts with a verb if its first word is one of ``VERBS``, in the imperative or the third person.
A word that is as often a noun ("Names of ...") counts only before an article or another determiner. Phrases are
searched in docstrings, comments, strings and Markdown, across line breaks.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
#: folders of tools, environments and build output
_SKIPPED = {".git", ".tox", ".venv", "venv", "build", "dist", "node_modules", "__pycache__", "_build"}

#: phrase -> its pattern, and the wording that a reader of the field expects
PHRASES = {
    "what is": (r"what(?:'s| is)", "a noun, such as `the format of the file`"),
    "is no X": (r"(?<!there )(?:is|are) no (?!more\b|less\b|longer\b)", "`is not a ...`, or `has no ...`"),
    "is asked": (r"(?:is|are|was|were|be|been) asked", "`requested`, or who selects or calls what"),
    "is told": (r"(?:is|are|was|were|be|been) told", "who does what, such as `a warning names ...`"),
    "anew": (r"anew", "`again`, or a verb with re-: `rebuild`"),
    "in words": (r"(?<!word )in words", "`as text`, `in full`"),
    "is said": (r"(?:is|are|was|were|be|been) said", "`reported`, `stated`, or who states it"),
    "goes on": (r"(?:goes|go|going|went) on", "`continues`, `resumes`"),
    "passed over": (r"passed over", "`ignored`, `skipped`"),
    "whatever": (r"whatever", "`any`, `every`, or the noun itself"),
}
_COMPILED = {name: re.compile(rf"\b{pattern}\b" if pattern[-1] != ")" else rf"\b{pattern}", re.IGNORECASE)
             for name, (pattern, _) in PHRASES.items()}  # fmt: skip

#: as often nouns as verbs at the start of a line
AMBIGUOUS = frozenset(
    """access answer approximate bias block broadcast bundle cache call cap cast center change chart chunk claim
    clip collect comment compile compound control copy cost count cover cross cut date default delay document draw drop
    end estimate exit feature file filter fix flag flow focus force form format frame function gate group guard guess
    guide hash head help hook index influence input issue key label layer layout lead level limit line link list load
    loan lock log loop map mark mask match measure mix mock move name need note number object offset open order output
    own pack pad page pair part patch path pin place plan plot point pool position present print process program prompt
    protocol query quote range rank rate record reference report request reserve reset result
    review rule run sample save scale schedule score screen search section seed select sequence set shape share shift
    show sign size slice slot sort sound source space split stack stage start state step stop store stream stride
    stub sum switch table tag tap target task template test text thread time token total trace track train
    transform transport trim type unit use value vary view wait walk warning watch weight work wrap
    profile project""".split()
)
VERBS = frozenset(
    """abort accept accumulate acquire activate add adjust advance aggregate align allocate allow annotate append apply
    arrange ask assemble assert assign associate attach attend attempt average avoid balance begin bind blend blur
    bound bring build calculate calibrate cancel capture carry catch choose clamp classify clean clear clone close
    collapse combine come commit compare complete compose compress compute concatenate conclude configure confirm
    connect consume contain continue convert convolve correct crash create crop customize deactivate decide decode
    declare decline decode deduplicate define delegate delete deliver denoise dequantize derive describe deserialize
    destroy detach detect determine diagnose disable discard discover dispatch display distribute divide do double
    download downsample dump duplicate embed emit enable encode enforce ensure enter enumerate erase escape establish
    evaluate evict exchange exclude execute expand expect explain export expose express extend extract fail fall feed
    fetch fill find finish fit flatten flip flush fold follow forbid forecast format forward freeze gather generate get
    give grab grow handle hand hide hold honor identify ignore implement import include indicate infer inform inherit
    initialise initialize inject insert inspect install instantiate insulate interpolate interpret interrupt intersect
    introduce invalidate invert invoke iterate join judge keep kill launch lay learn leave let lift listen localize
    locate look lose lower make manage materialize mean merge mirror modulate modify multiply mute mutate narrow
    negotiate nest normalise normalize notify obtain occupy offer offload omit optimize overlay override overwrite parse
    partition pass patchify pause peek perform permit persist pick play poll pop populate post pre-compute precompute
    predict prefer prefetch prepare prepend preserve prevent probe produce promise propagate propose protect prove
    provide prune publish pull push put quantize quantise raise reach rebuild recall receive recognise recognize
    recompute reconstruct recover redirect reduce refer refine refuse register reject relate relax reload remap remember
    remove rename render repeat replace reply reproduce require rescale resize resolve respect respond restart restore
    restrict resume retrieve retry reuse reverse revert rewrite ring rotate round safely satisfy say scan scatter see
    send separate serialise serialize serve settle setup shard shorten shrink shut signal simplify simulate skip sleep
    smooth solve spawn specify spell squeeze standardize state stay stitch strip structure study subtract succeed
    suggest summarise summarize supply support suppress survive swap synchronise synchronize take teach tell
    terminate throw announce enqueue
    tie tile tokenize touch translate transmit transpose traverse treat trigger truncate try tune turn unbind undo
    unflatten unify uninstall unload unpack unpatchify unregister unwrap update upgrade upload upsample validate verify
    visit want warm warn widen withdraw zero zip check read release return write yield""".split()
)
_DETERMINERS = frozenset(
    """a an the this that these those its their his her every each all any both some another one two three no more
    most many several only either neither what which whether how where when if as it them us you to up out in
    back down away over together until""".split()
) - {"in", "as", "to", "which", "that"}


def sources(roots: Iterable[Path], suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Walk the files with one of ``suffixes`` below ``roots``."""
    for root in roots:
        for file in [root] if root.is_file() else sorted(root.rglob("*")):
            inside = file.relative_to(root).parts
            if file.suffix in suffixes and file.is_file() and not _SKIPPED & set(inside):
                yield file


def docstrings(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the line, name and docstring of every documented function of a Python file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, _FUNCTIONS) and (text := ast.get_docstring(node)):
            yield node.lineno, node.name, text


def base_forms(word: str) -> set[str]:
    """List the possible base forms of ``word``, imperative or third person: ``copies`` gives ``copy``."""
    forms = {word}
    if word.endswith("ies"):
        forms.add(word[:-3] + "y")
    if word.endswith("es"):
        forms.add(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
    return forms


def starts_with_verb(text: str) -> bool:
    """Return whether the first word of ``text`` is a verb in the imperative or the third person."""
    words = re.findall(r"[\w'`-]+", text.lower())
    if not words:
        return False
    if words[0] in {"re-read", "re-raise", "re-export"}:
        return True
    forms = base_forms(words[0])
    if forms & AMBIGUOUS:
        return len(words) > 1 and (words[1] in _DETERMINERS or words[1].startswith("`"))
    return bool(forms & VERBS)


def readable(file: Path) -> tuple[str, list[int]]:
    """Read the prose of a file as one line, with the line number of each character.

    Python code is not removed: none of the phrases is code. Line breaks inside comments, docstrings and consecutive
    strings become one space.
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    out: list[str] = []
    lines: list[int] = []
    number, position = 1, 0
    joint = re.compile(r"""(?:[ ]?["'])?[ \t]*\n[ \t]*(?:#:?|>|[rfb]{0,2}["'](?!["'])|\*(?= ))?[ \t]*""")
    while position < len(text):
        match = joint.match(text, position)
        piece, taken = (" ", match.group()) if match else (text[position], text[position])
        if not (piece == " " and out and out[-1] == " "):
            out.append(piece)
            lines.append(number)
        number += taken.count("\n")
        position += len(taken)
    return "".join(out), lines


def phrases(file: Path) -> Iterator[tuple[int, str, str]]:
    """Find the banned phrases of a file: line number, phrase and surrounding text."""
    text, lines = readable(file)
    for name, pattern in _COMPILED.items():
        for match in pattern.finditer(text):
            around = text[max(0, match.start() - 30) : match.end() + 30].strip()
            yield lines[match.start()], name, around


def own(*, tests: bool) -> list[Path]:
    """List the folders and files of this tree with prose of the project."""
    names = [
        "lightx2v_core",
        "plugins",
        "examples",
        "tools",
        "benchmarks",
        "docs",
        "configs",
        *["tests"] * tests,
    ]
    pages = [page for suffix in ("md", "toml", "ini") for page in ROOT.glob(f"*.{suffix}")]
    return [ROOT / name for name in names if (ROOT / name).exists()] + pages


def is_own_prose(file: Path) -> bool:
    """Return whether ``file`` is prose to check: neither this table nor the test that quotes it."""
    return file.resolve() not in {Path(__file__).resolve(), ROOT / "tests" / "test_habits.py"}


def check(roots: list[Path]) -> int:
    """Print all banned phrases. Returns 1 if there is one, else 0."""
    suffixes = (".py", ".pyi", ".md", ".toml", ".ini", ".yml", ".sh")
    places = sorted({
        (str(file), line, name, around)
        for file in sources(roots, suffixes)
        if is_own_prose(file) and not any(above.is_symlink() for above in (file, *file.parents))
        for line, name, around in phrases(file)
    })  # fmt: skip
    for place, line, name, around in places:
        print(f"{place}:{line}: ...{around}...\n    {name}; better: {PHRASES[name][1]}")
    return 1 if places else 0


def report(title: str, roots: list[Path], *, tests: bool = True) -> None:
    """Print the metrics of one tree, with or without the folders named ``tests``."""
    code = [
        file
        for file in sources(roots, (".py",))
        if is_own_prose(file) and (tests or "tests" not in file.parts)
    ]
    texts = [text for file in code for _, _, text in docstrings(file)]
    verbs = sum(map(starts_with_verb, texts))
    relative = sum(bool(re.match(r"(?i)(what|which|whether|how)\b", text)) for text in texts)
    share = 100 / max(1, len(texts))
    print(f"{title}: {len(texts)} docstrings of functions, {verbs * share:.0f} % start with a verb,", end=" ")
    print(f"{relative * share:.0f} % with what, which, whether or how")
    pages = [file for file in sources(roots, (".md",)) if is_own_prose(file)]
    found = {where: Counter(name for file in files for _, name, _ in phrases(file))
             for where, files in (("py", code), ("md", pages))}  # fmt: skip
    for name in PHRASES:
        print(f"    {name:12} py {found['py'][name]:4}  md {found['md'][name]:4}")


def nouns(roots: list[Path]) -> None:
    """Print the docstrings that do not start with a verb."""
    for file in sources(roots, (".py",)):
        for line, name, text in docstrings(file) if "tests" not in file.parts else ():
            if not starts_with_verb(text):
                print(f"{file}:{line}: {name}: {text.splitlines()[0]}")


def main(arguments: list[str]) -> int:
    """Run the command of the command line."""
    if arguments[:1] == ["--check"]:
        return check([Path(name) for name in arguments[1:]] or own(tests=True))
    if arguments[:1] == ["--nouns"]:
        nouns([Path(name) for name in arguments[1:]] or own(tests=False))
        return 0
    for name in arguments:
        report(name, [Path(name)])
    if not arguments:
        report("shipped", own(tests=False), tests=False)
        report("tests", [ROOT / "tests", *ROOT.glob("plugins/*/tests")])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
