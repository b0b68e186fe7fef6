"""The texts of the page: complete in every language, used, and the only texts of the page."""

from __future__ import annotations

import ast
import html
import json
import os
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

import lightx2v_gradio
from lightx2v_core.api import PluginSet, RequestError, load_plugins
from lightx2v_gradio import panels
from lightx2v_gradio.form import INPUTS, FieldCounts, field_counts, fields, without_room
from lightx2v_gradio.forms_kept import KeptForms
from lightx2v_gradio.jobs import JobResult, JobView
from lightx2v_gradio.language import choose_language, split_path
from lightx2v_gradio.options import FolderOptions, LoraFile, ModelSource, find_options
from lightx2v_gradio.progress import Stage
from lightx2v_gradio.samples import find_sample
from lightx2v_gradio.settings import Settings, plan_settings
from lightx2v_gradio.texts import TEXTS, PageError, Texts, message
from lightx2v_gradio.texts_en import ENGLISH
from lightx2v_gradio.texts_zh import CHINESE

SOURCES = sorted(Path(lightx2v_gradio.__file__).parent.glob("*.py"))
#: Chinese texts in Latin letters
SAME = {"lora", "page.other_language", "progress.bytes"}
CJK = re.compile("[\u4e00-\u9fff]")
LETTER = re.compile(r"[^\W\d_]")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_language_has_every_text() -> None:
    assert list(ENGLISH) == list(CHINESE), "the same keys in the same order"
    for key, text in ENGLISH.items():
        assert text.strip(), key
        assert CHINESE[key].strip(), key
        assert placeholders(text) == placeholders(CHINESE[key]), key


def test_chinese_texts_are_chinese() -> None:
    plain = {key for key, text in CHINESE.items() if not CJK.search(text)}
    # signs between names and numbers
    assert {key for key in plain if LETTER.search(re.sub(r"\{\w+\}", "", CHINESE[key]))} == SAME
    assert {key for key, text in ENGLISH.items() if CJK.search(text)} == {"page.other_language"}


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield the keys in a module: strings, and f-strings with ``*`` for their values."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)


def test_every_text_is_used() -> None:
    used = {
        key
        for path in SOURCES
        if not path.name.startswith("texts_")
        for key in strings(ast.parse(path.read_text()))
    }
    patterns = [
        re.compile(re.escape(key).replace(r"\*", r"\w+")) for key in used if "*" in key and "." in key
    ]
    prefixes = ("phase.", "unit.", "task.", "prompt.", "status.waiting.")
    unused = [
        key for key in ENGLISH
        if key not in used and not key.startswith(prefixes) and not any(pattern.fullmatch(key) for pattern in patterns)
    ]  # fmt: skip
    assert unused == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_texts_are_called_by_known_keys_with_their_placeholders(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name not in ("texts", "_texts", "message", "PageError"):
            continue
        key, where = node.args[0].value, f"{path.name}:{node.lineno}"
        assert key in ENGLISH, where
        if all(keyword.arg for keyword in node.keywords):
            assert {keyword.arg for keyword in node.keywords} == placeholders(ENGLISH[key]), where


#: a language in which every text of the page is between these
OPEN, CLOSE = "⟦", "⟧"
MARKED = Texts("en", "en", {key: f"{OPEN}{text}{CLOSE}" for key, text in ENGLISH.items()})


def unmarked(text: str) -> str:
    """Return the parts of a text outside marks."""
    depth, rest = 0, []
    for sign in text:
        depth += (sign == OPEN) - (sign == CLOSE)
        rest.append(sign if depth == 0 and sign != CLOSE else " ")
    return " ".join("".join(rest).split())


def shown(markup: str) -> str:
    """Return what a reader of HTML gets: its text, and attributes for screen readers."""
    markup = re.sub(r'<(\w+)[^>]*lang="en"[^>]*>.*?</\1>', " ", markup, flags=re.S)  # texts of the core
    attributes = re.findall(r'(?:alt|aria-label|title)="([^"]*)"', markup)
    return html.unescape(" ".join([re.sub(r"<[^>]*>", " ", markup), *attributes]))


@pytest.fixture(scope="module")
def plugins() -> PluginSet:
    return load_plugins()


@pytest.fixture(scope="module")
def options(image_model: Path, plugins: PluginSet) -> FolderOptions:
    found = find_options(ModelSource(folder=str(image_model)), plugins)
    coverage = message("lora.coverage", matched=1, tensors=2, changed=3)
    file = LoraFile(path="/l/x.safetensors", name="x.safetensors", coverage=coverage)
    return evolve(found, loras=(file,) * 30, optional=tuple(INPUTS), tasks=("i2v", "t2v"))


def test_the_form_has_no_other_texts(options: FolderOptions) -> None:
    """Labels, notes and choices come from the catalogue; names, numbers and summaries of plugins do not."""
    lists = (options.attention, options.schedulers, options.offloaders, *options.precisions.values())
    of_plugins = {option.label for choices in lists for option in choices if isinstance(option.label, str)}
    for name, field in fields(options, Settings(), FieldCounts(), MARKED).items():
        texts = [field.label, field.info, *(label for label, _ in field.choices if label not in of_plugins)]
        for text in texts:
            assert text in (None, "x") or unmarked(str(text)) == "", (name, text)


#: prints the texts of Gradio's components; in a process of its own, since Gradio leaves an event loop open
LAYOUT = """
import json, sys
from attrs import evolve
from lightx2v_core.api import load_plugins
from lightx2v_gradio.layout import build
from lightx2v_gradio.options import ModelSource, find_options
from lightx2v_gradio.texts import Texts
from lightx2v_gradio.texts_en import ENGLISH
options = find_options(ModelSource(folder=sys.argv[1]), load_plugins())
marked = Texts("en", "en", {key: sys.argv[2] + text + sys.argv[3] for key, text in ENGLISH.items()})
blocks = build(evolve(options, missing=(), unusable=(), tasks=("i2v", "t2v")), marked).blocks
for component in blocks.get_config_file()["components"]:
    kind, props = component["type"], component["props"]
    if props.get("visible") == "hidden" or kind in ("state", "timer") or props.get("elem_id") == "model":
        continue
    texts = [props.get("label") if props.get("show_label", True) else None, props.get("info")]
    texts += [props["value"]] if kind in ("button", "html") else []
    texts += [label for label, _ in props["choices"]] if kind == "radio" else []
    for text in filter(None, texts):
        print(json.dumps([kind, props.get("elem_id"), text]))
"""


def test_the_layout_has_no_other_texts(image_model: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs gradio")
    command = [sys.executable, "-c", LAYOUT, str(image_model), OPEN, CLOSE]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 60
    for kind, name, text in lines:
        rest = unmarked(shown(text)).replace("lightx2v-core", "")  # the title
        assert not LETTER.search(rest), (kind, name, text)


def view(**changed: Any) -> JobView:
    known: dict[str, Any] = {
        "id": "a", "order": SimpleNamespace(settings=Settings()), "state": "working", "before": 0,
        "stage": Stage(phase="denoise", done=2, total=9, unit="steps"), "seconds": 100.0, "preview": b"p",
        "preview_count": 1, "cancelling": True, "warnings": (), "message": "", "made": None,
    }  # fmt: skip
    return JobView(**{**known, **changed})


NUMBERS = dict.fromkeys(("width", "height", "frames", "steps", "seed"), 1)
MADE = JobResult(file="7.mp4", record_file="7.json", record={"request": NUMBERS})


def test_panels_have_no_other_texts(options: FolderOptions, plugins: PluginSet) -> None:
    out = without_room(options, FieldCounts())
    views = [view(), *(view(state=state, before=before, message=message("error.prompt"), made=MADE)
             for state in ("waiting", "done", "cancelled", "failed") for before in (0, 1, 2))]  # fmt: skip
    stages = [Stage(), *(Stage(phase=phase, done=1, total=3, unit=unit) for phase, unit in
              (("load", "bytes"), ("encode", "prompts"), ("denoise", "steps"), ("decode", "frames")))]  # fmt: skip
    rendered = [
        panels.empty(MARKED, options),
        panels.examples(MARKED, evolve(options, examples=())),
        panels.loras(MARKED, options, out),
        panels.loras(MARKED, evolve(options, loras=()), ()),
        panels.absent(MARKED, evolve(options, missing=(), unusable=()), out),
        panels.absent(MARKED, evolve(options, missing=(), unusable=()), ()),
        panels.forecast(MARKED, plan_settings(Settings(prompt="1"), options, plugins)),
        panels.gallery(MARKED, [view(made=MADE)], None),
        panels.jobs(MARKED, views, None),
        *(panels.status(MARKED, each, 5.0) for each in views),
        *(panels.status(MARKED, view(stage=stage), 5.0) for stage in stages),
        *(panels.preview(MARKED, each) for each in views),
        *(panels.result(MARKED, each) for each in views),
        panels.result(MARKED, view(made=evolve(MADE, file="7.png"))),
    ]
    for markup in rendered:
        assert not LETTER.search(unmarked(shown(markup))), markup


def test_messages_are_rendered_with_their_values() -> None:
    error = PageError("error.whole", name=message("frames"), value=9.5)
    assert isinstance(error, RequestError)
    assert str(error) == "Frames must be a whole number, not 9.5"
    assert TEXTS["zh"].error(error) == "帧数必须是整数，不能是 9.5"
    assert TEXTS["zh"].error(RequestError("width must be divisible by 16")) == "width must be divisible by 16"
    names = [message("input.image"), "x"]
    assert TEXTS["zh"]("status.empty.input", inputs=names).startswith("请上传：图像（首帧）、x。")
    with pytest.raises(KeyError):
        TEXTS["en"]("nothing")


@pytest.mark.parametrize(
    ("cookie", "accept", "language"),
    [
        ("", "", "en"), ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("", "en-US,en;q=0.9,zh;q=0.8", "en"),
        ("", "zh-TW", "zh"), ("", "de-DE,de;q=0.9,zh;q=0.5,en;q=0.7", "en"), ("", "fr", "en"), ("", "*", "en"),
        ("", "zh;q=0, en;q=0.1", "en"), ("", "zh;q=x,;;,en", "en"), ("", "ZH-hans", "zh"), ("zh", "en", "zh"),
        ("en", "zh", "en"), ("xx", "zh", "zh"),
    ],
)  # fmt: skip
def test_the_browser_chooses_the_language(cookie: str, accept: str, language: str) -> None:
    assert choose_language(cookie, accept) == language


def test_paths_belong_to_languages() -> None:
    assert split_path("/zh/config") == ("zh", "/config")
    assert split_path("/zh/") == ("zh", "/")
    assert split_path("/zhu") == ("en", "/zhu")
    assert split_path("/config") == ("en", "/config")


def test_a_form_is_kept_for_one_reload(options: FolderOptions) -> None:
    now = [0.0]
    kept = KeptForms(clock=lambda: now[0])
    source, settings = options.source, Settings(prompt="a fox")
    kept.keep("me", source, settings)
    assert kept.take("you") is None
    assert kept.take("me") == (source, settings)
    assert kept.take("me") is None
    kept.keep("me", source, settings)
    now[0] = 61.0
    assert kept.take("me") is None, "a tab that opens later starts afresh"
    for number in range(201):
        kept.keep(str(number), source, settings)
    assert kept.take("0") is None
    assert kept.take("1") is not None


def test_samples_are_clips_of_example_prompts(options: FolderOptions, plugins: PluginSet) -> None:
    assert find_sample(options, "en") is None, "a model of a folder has none"
    pytest.importorskip("lightx2v_mini", reason="needs the trained model")
    mini = find_options(ModelSource(folder="mini"), plugins)
    for texts in TEXTS.values():
        clip = find_sample(mini, texts.language)
        assert clip is not None
        assert clip.prompt in mini.examples
        assert bool(CJK.search(clip.prompt)) == (texts.language == "zh")
        assert clip.video[4:8] == b"ftyp"
        assert len(clip.video) < 10_000
        assert f'data-prompt="{clip.prompt}"' in panels.examples(texts, mini)
    assert find_sample(evolve(mini, examples=()), "en") is None, "a folder of that name is another model"
    assert field_counts(mini) == FieldCounts()
