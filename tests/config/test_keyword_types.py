"""The typed keyword arguments of ``load``, ``generate``, ``write`` and ``plan_run`` are those that the fields declare.

``python tests/config/test_keyword_types.py`` writes lightx2v_core/config/keyword_types.py anew.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from lightx2v_core.config.declared import Setting, settings
from lightx2v_core.config.knob import BYTES, ONE_NUMBER, SIZE
from lightx2v_core.config.model import Dtype, LoraConfig, Section

REPOSITORY = Path(__file__).resolve().parents[2]
FILE = REPOSITORY / "lightx2v_core" / "config" / "keyword_types.py"
HEAD = '''"""The keyword arguments of ``load``, ``generate`` and ``plan_run``, for editors and type checkers.

Written by tests/config/test_keyword_types.py from the fields of the configuration; change those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict

from lightx2v_core.config.model import Dtype

#: a name, names that are tried in order, or ``{"use": ..., "options": ...}``
Choice: TypeAlias = str | Sequence[str] | Mapping[str, object] | None
Paths: TypeAlias = Sequence[str | Path] | None
'''
CLASSES = (
    ("RequestKeywords", "TypedDict", ("request",), "What a request may say."),
    ("LoadKeywords", "RequestKeywords", ("load",),
     "What ``load`` takes: the pipeline's own values, and defaults of requests."),
    ("GenerateKeywords", "RequestKeywords", ("input",),
     "What ``generate`` takes: a request, and its inputs as paths, PIL images, arrays or tensors."),
    ("PlanKeywords", "LoadKeywords", ("input",), "What ``plan_run`` takes: as ``load``, and the paths of inputs."),
)  # fmt: skip
#: a type of the configuration -> what Python may give for it
BY_TYPE: dict[object, str] = {
    int: "int", float: "float", str: "str", bool: "bool", Dtype: "Dtype", Section: "Choice",
    tuple[LoraConfig, ...]: "Sequence[str | Path | Mapping[str, object]]",
}  # fmt: skip
BY_SHORT_FORM = {SIZE: "Sequence[int] | str", BYTES: "int | str", ONE_NUMBER: "float | Sequence[float]"}


def written() -> str:
    """The module as the fields say it."""
    lines = [HEAD]
    for name, base, kinds, about in CLASSES:
        lines += ["", f"class {name}({base}, total=False):", f'    """{about}"""', ""]
        for setting in settings():
            if setting.knob.keyword in kinds:
                lines += [*comment(setting), f"    {setting.name}: {type_of(setting, name)}"]
        lines.append("")
    return formatted("\n".join(lines))


def type_of(setting: Setting, owner: str) -> str:
    if setting.knob.keyword == "input":
        if owner == "GenerateKeywords":
            return "object"
        return "Paths" if setting.kind == tuple[str, ...] else "str | Path | None"
    if "ComponentConfig" in str(setting.kind):
        return "Mapping[str, Mapping[str, object]]"
    kind = BY_TYPE.get(setting.kind, "") if setting.knob.short is None else BY_SHORT_FORM[setting.knob.short]
    optional = setting.default is None and setting.kind not in (Section, tuple[LoraConfig, ...])
    return f"{kind} | None" if optional else kind


def comment(setting: Setting) -> list[str]:
    return textwrap.wrap(setting.knob.help, 110, initial_indent="    #: ", subsequent_indent="    #: ")


def formatted(text: str) -> str:
    return re.sub(r"\n{4,}", "\n\n\n", text).rstrip() + "\n"


def test_the_types_are_current() -> None:
    assert FILE.read_text(encoding="utf-8") == written(), "run: python tests/config/test_keyword_types.py"


def test_the_functions_take_them() -> None:
    """By name: ``Unpack`` is of the type checker alone where Python has none."""
    pytest.importorskip("torch")
    from lightx2v_core.api import Pipeline, Planner, load, plan_run

    unpacked = {
        function.__qualname__: parameter.annotation
        for function in (load, Pipeline.generate, Pipeline.write, Pipeline.resolve, plan_run, Planner.plan)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.VAR_KEYWORD
    }
    request = "Unpack[GenerateKeywords]"
    assert unpacked == {
        "load": "Unpack[LoadKeywords]",
        "Pipeline.generate": request, "Pipeline.write": request, "Pipeline.resolve": request,
        "plan_run": "Unpack[PlanKeywords]", "Planner.plan": "Unpack[PlanKeywords]",
    }  # fmt: skip


def test_they_are_what_is_taken_at_run_time() -> None:
    from lightx2v_core.config import keyword_types
    from lightx2v_core.config.keywords import INPUTS, KEYWORDS, PER_REQUEST

    def names(cls: Any) -> set[str]:
        return set(get_type_hints(cls))

    assert names(keyword_types.LoadKeywords) == set(KEYWORDS)
    assert names(keyword_types.GenerateKeywords) == {*PER_REQUEST, *INPUTS}
    assert names(keyword_types.PlanKeywords) == {*KEYWORDS, *INPUTS}


USE = """
from pathlib import Path
from lightx2v_core import load
from lightx2v_core.api import plan_run

pipeline = load(
    "models/x", task="t2v", steps=4, attention=["flash-attn3?", "sdpa"], dtype="bfloat16", vram_limit="24GB",
    loras=["a.safetensors", {"path": "b", "strength": 0.5}], components={"vae": {"path": "v.pth"}},
)
video = pipeline.generate(prompt="a fox", size=(832, 480), guide_scale=5, image=Path("fox.png"), seed=1)
pipeline.write("fox.mp4", prompt="a fox", guide_scale=(4.0, 3.0), record=False)
plan = plan_run("models/x", src_video="v.mp4", scheduler={"use": "euler"}, size="832x480")
"""
WRONG = {
    'load("x", step=4)': 'Unexpected keyword argument "step" for "load"',
    'load("x", steps="four")': 'Argument "steps" to "load" has incompatible type "str"',
    'load("x", image="fox.png")': 'Unexpected keyword argument "image" for "load"',
    'load("x", dtype="bf16")': 'Argument "dtype" to "load" has incompatible type',
    "pipeline.generate(prompt=3)": 'Argument "prompt" to "generate" of "Pipeline" has incompatible type "int"',
    'pipeline.generate(attention="sdpa")': 'Unexpected keyword argument "attention" for "generate" of "Pipeline"',
    'pipeline.write("x.mp4", frame=5)': 'Unexpected keyword argument "frame" for "write" of "Pipeline"',
    'plan_run("x", framse=5)': 'Unexpected keyword argument "framse" for "plan_run"',
}


def test_a_type_checker_reports_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="it is of the environment that checks types")
    file = tmp_path / "use.py"
    file.write_text(USE + "\n".join(WRONG) + "\n", encoding="utf-8")
    line = [sys.executable, "-m", "mypy", "--python-version", "3.10", "--cache-dir", str(tmp_path), str(file)]
    # what is imported is found where it is, and not checked itself
    done = subprocess.run(
        [*line, "--follow-imports", "silent"], capture_output=True, text=True, cwd=REPOSITORY
    )
    said = [text for text in done.stdout.splitlines() if "error:" in text]
    first = USE.count("\n") + 1
    for number, (code, message) in enumerate(WRONG.items(), start=first):
        assert any(f"use.py:{number}: " in text and message in text for text in said), (code, done.stdout)
    assert len(said) == len(WRONG), done.stdout


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
