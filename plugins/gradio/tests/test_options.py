"""What the page offers for a folder, what its form shows, and what its values mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from lightx2v_core.api import CheckpointError, PluginSet, RequestError, load_plugins
from lightx2v_gradio import panels
from lightx2v_gradio.form import (
    FREE,
    INPUTS,
    FieldCounts,
    field_counts,
    fields,
    parse_size,
    read_settings,
    without_room,
)
from lightx2v_gradio.options import (
    FolderOptions,
    LoraFile,
    ModelSource,
    Option,
    find_option,
    find_options,
    merge_configs,
)
from lightx2v_gradio.settings import (
    Settings,
    from_record,
    load_config,
    plan_settings,
    real_number,
    request,
    whole_number,
)
from lightx2v_gradio.texts import TEXTS, message

COUNTS = FieldCounts()
ENGLISH = TEXTS["en"]


@pytest.fixture(scope="session")
def plugins() -> PluginSet:
    return load_plugins()


@pytest.fixture(scope="module")
def text_options(model: Path, plugins: PluginSet) -> FolderOptions:
    return find_options(ModelSource(folder=str(model)), plugins)


@pytest.fixture(scope="module")
def image_options(image_model: Path, plugins: PluginSet) -> FolderOptions:
    return find_options(ModelSource(folder=str(image_model)), plugins)


def values(options: FolderOptions, settings: Settings | None = None, **changed: Any) -> dict[str, Any]:
    """The values of the form as the page sends them."""
    shown = {
        name: field.value for name, field in fields(options, settings or Settings(), COUNTS, ENGLISH).items()
    }
    assert set(changed) <= set(shown)
    return {**shown, **changed}


def test_a_text_model_offers_what_it_can_do(text_options: FolderOptions) -> None:
    assert (text_options.tasks, text_options.required, text_options.optional) == (("t2v",), (), ())
    assert list(text_options.precisions) == ["dit", "text_encoder"]
    assert [option.key for option in text_options.precisions["dit"]][:3] == ["", "fp8-torch", "int8-torch"]
    assert ENGLISH.show(text_options.precisions["text_encoder"][0].label) == "as stored (bfloat16)"
    assert [option.key for option in text_options.attention][:1] == ["auto"]
    assert {"unipc", "euler"} <= {option.key for option in text_options.schedulers}
    assert {"auto", "none"} <= {option.key for option in text_options.offloaders}
    assert text_options.tiny_vae is not None


def test_everything_that_is_offered_can_be_planned(text_options: FolderOptions, plugins: PluginSet) -> None:
    keys: dict[str, Any] = {
        "attention": text_options.attention,
        "offloader": text_options.offloaders,
        "scheduler": text_options.schedulers,
    }
    for name, choices in keys.items():
        for option in choices:
            plan_settings(
                evolve(Settings(prompt="a fox"), **{name: option.key}), text_options, plugins, ready=True
            )
    for part, choices in text_options.precisions.items():
        for option in choices:
            plan_settings(
                Settings(prompt="a fox", precision={part: option.key}), text_options, plugins, ready=True
            )


def test_loras_are_offered_with_what_they_do(text_options: FolderOptions) -> None:
    (lora,) = text_options.loras
    assert lora.name == "swirl.safetensors"
    assert ENGLISH.show(lora.coverage) == (
        "12 of 12 tensors in the file match; they change 6 tensors of the network"
    )
    assert any("other.safetensors" in ENGLISH.show(line) for line in text_options.unusable)


def test_what_is_missing_is_named(text_options: FolderOptions, plugins: PluginSet) -> None:
    installed = {provided.plugin for plugin in plugins.plugins for provided in plugin.provides}
    if "offload" not in installed:
        assert any(
            "lightx2v-offload provides cpu, disk: pip install " in line for line in text_options.missing
        )
    if "xformers" not in installed:
        assert any(line.startswith("lightx2v-xformers provides xformers") for line in text_options.missing)


def test_an_image_model_asks_for_an_image(image_options: FolderOptions, plugins: PluginSet) -> None:
    assert image_options.required == ("image",)
    shown = fields(image_options, Settings(), COUNTS, ENGLISH)
    assert [name for name in INPUTS if shown[name].visible] == ["image"]
    assert shown["size"].info == (
        "Aspect ratio follows “Image (first frame)”; this sets the number of pixels."
    )
    assert "image_encoder" in image_options.precisions
    with pytest.raises(RequestError, match="needs image"):
        plan_settings(Settings(prompt="it runs"), image_options, plugins, ready=True)


def test_a_broken_image_is_said_to_be_one(
    image_options: FolderOptions, plugins: PluginSet, tmp_path: Path
) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(b"\x89PNG but not really")
    with pytest.raises(RequestError, match=r"broken.png' is not a readable image"):
        plan_settings(
            Settings(prompt="it runs", inputs={"image": str(file)}), image_options, plugins, ready=True
        )


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("", "no model folder; enter one"),
        ("/nowhere/at/all", "does not exist"),
        ("EMPTY", "it contains notes.txt"),
    ],
)
def test_a_wrong_folder(folder: str, message: str, plugins: PluginSet, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises((RequestError, CheckpointError), match=message):
        find_options(ModelSource(folder=folder.replace("EMPTY", str(tmp_path))), plugins)


def test_an_untouched_form_says_nothing(text_options: FolderOptions, plugins: PluginSet) -> None:
    """What nobody changed is left to the model, so that what follows from other choices follows."""
    settings = read_settings(values(text_options, prompt=" a fox "), text_options)
    assert settings.prompt == "a fox"
    assert set(request(settings, text_options)) == {"prompt", "size"}
    plan = plan_settings(settings, text_options, plugins, ready=True)
    assert plan.request == evolve(text_options.plan.request, prompt="a fox")
    assert load_config(settings, text_options) == merge_configs(
        {"attention": "auto", "offloader": "auto", "memory": {}}
    )


def test_what_was_changed_is_said(text_options: FolderOptions, plugins: PluginSet) -> None:
    (lora,) = text_options.loras
    settings = read_settings(
        values(
            text_options, prompt="a fox", negative_prompt="", size=FREE, width=64, height=48, frames=9, steps=4,
            guidance=2, shift=3, fps=8, scheduler="euler", seed=5, random_seed=False, precision_0="fp8-torch",
            tiny_vae=True, attention="sdpa", offloader="none", ram_limit=6, lora_on_0=True, lora_strength_0=0.5,
        ),
        text_options,
    )  # fmt: skip
    plan = plan_settings(settings, text_options, plugins, ready=True)
    asked = plan.request
    assert (asked.width, asked.height, asked.frames, asked.steps, asked.fps) == (64, 48, 9, 4, 8)
    assert (asked.guide_scale, asked.shift, asked.scheduler, asked.seed) == ((2.0,), 3.0, "euler", 5)
    assert asked.negative_prompt == ""
    assert plan.choice("quantizer").use == "core/fp8-torch"
    assert {part.name for part in plan.components} == {"dit", "text_encoder", "tiny_vae"}
    assert plan.memory.host_limit == 6 * 10**9
    assert [(adapter.path, adapter.strength) for adapter in plan.adapters] == [(lora.path, 0.5)]
    # and the form shows it again
    assert read_settings(values(text_options, settings), text_options) == settings


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"size": FREE, "width": 250, "height": 160},
            "width must be divisible by 16: instead of 250 use 240 or 256",
        ),
        ({"size": FREE, "width": None, "height": 160}, "width and height go together"),
        ({"size": "wide"}, "'wide' is not a size"),
        ({"frames": 10}, "frames must be 4k [+] 1: instead of 10 use 9 or 13"),
        ({"frames": 9.5}, "Frames must be a whole number, not 9.5"),
        ({"steps": 0}, "steps"),
        ({"steps": "many"}, "Steps must be a number, not 'many'"),
        ({"guidance": float("nan")}, "Guidance scale must be a finite number"),
        ({"scheduler": "magic"}, "'magic' is not available here; choose from .*unipc"),
        ({"precision_0": "nvfp4"}, "'nvfp4' is not available here; choose from as stored, "),
        ({"ram_limit": 0.001}, "--ram-limit"),
        ({"prompt": "  "}, "no prompt; describe the video"),
    ],
)
def test_what_is_wrong_is_one_message(
    text_options: FolderOptions, plugins: PluginSet, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        plan_settings(
            read_settings(values(text_options, **{"prompt": "a fox", **changed}), text_options),
            text_options,
            plugins,
            ready=True,
        )


def test_the_defaults_of_another_scheduler_follow_from_it(
    text_options: FolderOptions, plugins: PluginSet
) -> None:
    plain = text_options.plan.request
    settings = read_settings(values(text_options, prompt="a fox", scheduler="euler"), text_options)
    assert plan_settings(settings, text_options, plugins).request.steps == plain.steps


def test_presets_say_what_they_are(text_options: FolderOptions) -> None:
    labels = [label for label, _ in fields(text_options, Settings(), COUNTS, ENGLISH)["size"].choices]
    assert labels[0] == "832 × 480, landscape"
    assert "480 × 832, portrait" in labels
    assert labels[-1] == "Custom size"
    assert fields(text_options, Settings(width=64, height=64), COUNTS, ENGLISH)["size"].value == FREE


def test_a_checkpoint_with_a_size_of_its_own_is_offered_in_no_other(text_options: FolderOptions) -> None:
    assert "832x480" in [
        key for _label, key in fields(text_options, Settings(), COUNTS, ENGLISH)["size"].choices
    ]
    origins = {**text_options.plan.origins, "size": "checkpoint mini"}
    own = evolve(text_options, plan=evolve(text_options.plan, origins=origins))
    now = f"{text_options.plan.request.width}x{text_options.plan.request.height}"
    assert [key for _label, key in fields(own, Settings(), COUNTS, ENGLISH)["size"].choices] == [now, FREE]


def test_nothing_is_left_out_silently(text_options: FolderOptions) -> None:
    """A page has room for all that it was started with, and says what of another folder it has none for."""
    files = tuple(
        LoraFile(path=f"/l/style{index}.safetensors", name=f"style{index}.safetensors", coverage="all of it")
        for index in range(40)
    )
    many = evolve(text_options, loras=files)
    counts = field_counts(many)
    assert (counts.loras, without_room(many, counts)) == (40, ())
    shown = fields(many, Settings(loras={files[39].path: 0.5}), counts, ENGLISH)
    assert (shown["lora_on_39"].visible, shown["lora_on_39"].value, shown["lora_strength_39"].value) == (
        True,
        True,
        0.5,
    )
    sent = {name: field.value for name, field in shown.items()}
    assert read_settings({**sent, "lora_on_0": True}, many).loras == {files[0].path: 1.0, files[39].path: 0.5}
    (said,) = without_room(many, COUNTS)
    line = ENGLISH.show(said)
    assert line.startswith("16 more LoRA files: style24.safetensors, style25.safetensors, ")
    assert line.endswith("style39.safetensors; a page started with this folder shows them")
    assert line in panels.loras(ENGLISH, many, (said,))
    assert line in panels.absent(ENGLISH, many, (said,))
    assert read_settings(values(many, lora_on_23=True), many).loras == {files[23].path: 1.0}
    parts = {f"part_{index}": text_options.precisions["dit"] for index in range(6)}
    more = evolve(text_options, precisions=parts)
    assert without_room(more, field_counts(more)) == ()
    (said,) = without_room(more, COUNTS)
    assert ENGLISH.show(said) == ("precision of Part 4, Part 5; a page started with this folder shows it")
    assert panels.loras(ENGLISH, more, (said,)) == ""
    assert set(read_settings(values(more), more).precision) == {"part_0", "part_1", "part_2", "part_3"}


def test_settings_of_a_record(text_options: FolderOptions) -> None:
    record = {
        "request": {
            "prompt": "a fox", "negative_prompt": "", "width": 64, "height": 64, "frames": 9, "fps": 16.0, "steps": 4,
            "guide_scale": [3.0], "shift": 5.0, "seed": 11, "scheduler": "unipc",
        }
    }  # fmt: skip
    settings = from_record(record, Settings(tiny_vae=True))
    assert (settings.seed, settings.steps, settings.width, settings.tiny_vae) == (11, 4, 64, True)


def test_two_networks_have_two_guidances(text_options: FolderOptions) -> None:
    plan = evolve(
        text_options.plan, experts=2, request=evolve(text_options.plan.request, guide_scale=(4.0, 3.0))
    )
    two = evolve(text_options, plan=plan)
    shown = fields(two, Settings(), COUNTS, ENGLISH)
    assert shown["guidance_low"].visible
    assert (shown["guidance"].value, shown["guidance_low"].value) == (4.0, 3.0)
    assert read_settings(values(two), two).guide_scale == ()
    assert read_settings(values(two, guidance_low=2), two).guide_scale == (4.0, 2.0)
    with pytest.raises(RequestError, match="for both networks"):
        read_settings(values(two, guidance=None), two)
    assert not fields(text_options, Settings(), COUNTS, ENGLISH)["guidance_low"].visible


def test_numbers_of_a_form() -> None:
    assert whole_number("", "it") is None
    assert whole_number(5.0, "it") == 5
    assert real_number("2.5", "it") == 2.5
    assert parse_size("832x480") == (832, 480)


def test_configurations_are_merged_key_by_key() -> None:
    assert merge_configs({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4}) == {"a": {"b": 1, "c": 3}, "d": 4}
    assert merge_configs({"a": "x"}, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_what_is_not_offered_cannot_be_chosen() -> None:
    with pytest.raises(RequestError, match="'b' is not available here; choose from as stored, a"):
        find_option([Option(key="", label=message("precision.stored")), Option(key="a", label="A")], "b")


def test_a_model_that_knows_few_words_offers_prompts(
    text_options: FolderOptions, plugins: PluginSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert text_options.examples == (), "a model of a folder says nothing of itself"
    assert fields(text_options, Settings(), COUNTS, ENGLISH)["prompt"].placeholder == (
        ENGLISH("prompt.t2v.1")
    )
    pytest.importorskip("lightx2v_mini", reason="needs the trained model")
    mini = find_options(ModelSource(folder="mini"), plugins)
    assert "a red circle moves to the right on a blue background" in mini.examples
    assert fields(mini, Settings(), COUNTS, ENGLISH)["prompt"].placeholder == mini.examples[0]
    pictures = find_options(ModelSource(folder="mini-i2v"), plugins)
    assert pictures.examples
    assert pictures.examples != mini.examples
    (tmp_path / "mini").symlink_to(text_options.source.folder)
    monkeypatch.chdir(tmp_path)
    assert find_options(ModelSource(folder="mini"), plugins).examples == (), (
        "a folder of that name is another model"
    )
