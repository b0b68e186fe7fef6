"""The keys of LightX2V's configuration, read from the notes about it if they are next to the repository."""

from __future__ import annotations

import re
from pathlib import Path

FACTS = Path(__file__).resolve().parents[3] / "shared" / "facts"
FROZEN = Path(__file__).with_name("legacy_keys.txt")

#: words of the tables that are not keys
_WORDS = frozenset("key env alias briefly default only outside audio LoRA".split())


def frozen() -> list[str]:
    """The keys as they were when this list was written."""
    return FROZEN.read_text(encoding="utf-8").split()


def stated() -> set[str]:
    """Every key of ``runtime.md`` 8 and ``formats.md`` 3 and 8."""
    runtime, formats = ((FACTS / name).read_text(encoding="utf-8") for name in ("runtime.md", "formats.md"))
    section = re.split(r"^## ", runtime, flags=re.MULTILINE)[9]
    assert section.startswith("8. Runtime config keys")
    found = _first_column(section)
    found |= _listed(re.search(r"^Architecture keys.*?: (.*)$", section, re.MULTILINE).group(1))  # type: ignore[union-attr]
    found |= _listed(section.split("### 8.4")[1].split("\n\n")[0].partition("\n")[2].replace(" in JSON", ""))
    third, eighth = (
        part
        for part in re.split(r"^## ", formats, flags=re.MULTILINE)
        if part.startswith(("3. Scheme names", "8. Config keys"))
    )
    found |= set(re.findall(r"`([a-z0-9_]+(?:\.[a-z_]+)?)`", third)) & {
        "dit_quant_scheme", "mm_config.mm_type", "mm_config.weight_auto_quant", "t5_quant_scheme",
        "clip_quant_scheme", "t5_cpu_offload", "cpu_offload", "nvfp4_ffn_split_n_workaround",
    }  # fmt: skip
    found |= _first_column(eighth)
    found |= set(re.findall(r"([a-z][a-z0-9_]+) (?:false|true|null|\(|\d|\")", eighth.split("### 8.2")[0]))
    found |= {"vae_stride", "patch_size"}
    return found - _WORDS


def _first_column(text: str) -> set[str]:
    """Keys of the tables, also where a cell holds several."""
    found: set[str] = set()
    for line in text.splitlines():
        title = line.startswith(("| key ", "| legacy ", "| env ", "| LoRA "))
        if line.startswith("| ") and not title and "inside `" not in line:
            found |= _listed(line.split("|")[1])
    return found


def _listed(text: str) -> set[str]:
    """``a, b / c_{x,y} (alias d)`` as a, b, c_x, c_y, d."""
    text = re.sub(
        r"(\w+)\{([\w,]+)\}", lambda m: " ".join(m.group(1) + end for end in m.group(2).split(",")), text
    )
    keys = re.findall(r"[a-z][A-Za-z0-9_]*(?:\[\])?(?:\.[A-Za-z0-9_]+)*", text)
    return {
        key.replace("[]", "") for key in keys if ".pth" not in key and not re.fullmatch(r"clip|fp8|int8", key)
    }
