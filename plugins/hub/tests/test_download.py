"""``lightx2v-core download`` against a local hub: the files fetched, and the output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightx2v_core.testing.hub import Hub

from .conftest import NET, SMALL, Download, Inside, content, partials


def test_an_official_repository_without_what_no_run_needs(download: Download, hub: Hub) -> None:
    done = download("acme/Small")
    assert done.status == 0, done.err
    assert download.files("models/Small") == SMALL
    assert (download.folder / "models/Small" / NET).read_bytes() == content(f"acme/Small/{NET}", 300_000)
    assert "left out: README.md, assets/picture.png, tok/spiece.model (6.0 KiB)" in done.out
    assert done.out.splitlines()[-2:] == [
        "lightx2v-core plan --model-path models/Small --task t2v",
        "lightx2v-core run --model-path models/Small --task t2v --prompt TEXT --output video.mp4",
    ]
    assert partials(download.folder) == []
    hub.asked.clear()
    assert "; 0 bytes to download to models/Small" in download("acme-small").out  # the same by its name
    assert not [asked for asked in hub.asked if not asked.path.startswith("/api/")]


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ((), {"turbo_original.safetensors"}),
        (("--precision", "fp8"), {"turbo_fp8.safetensors"}),
        (("--precision", "original,int8"), {"turbo_original.safetensors", "turbo_int8.safetensors"}),
        (("--precision", "all"), {f"turbo_{name}.safetensors" for name in ("original", "fp8", "int8")}),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
def test_a_single_file_with_the_rest_of_the_official_model(
    inside: Inside, arguments: tuple[str, ...], files: set[str]
) -> None:
    done = inside("acme-turbo", *arguments, "--to", "m")
    assert done.status == 0, done.err
    assert set(inside.files("m")) == files | {
        "config.json",
        "text-bf16.pth",
        "tok/tokenizer.json",
        "vae.pth",
    }
    assert ("--set" in done.out) == (len(files) > 1)
    assert "--image FILE" in done.out
    note = "note: text_encoder: not available in fp8; using the original"
    assert (note in done.out) == ("fp8" in arguments or ("all" in arguments and note in done.out))


def test_a_pair_goes_into_the_folders_of_its_experts(inside: Inside) -> None:
    assert inside("acme-pair", "--precision", "fp8", "--to", "m").status == 0
    assert set(inside.files("m")) == {
        "high_noise_model/high_noise_fp8.safetensors",
        "low_noise_model/low_noise_fp8_1030.safetensors",  # a version with a date, where there is no other
        "q/text-fp8.pth",
        "vae.pth",
    }
    mixed = inside("acme-pair", "--precision", "text_encoder=original", "--precision", "dit=fp8", "--to", "n")
    assert mixed.status == 0, mixed.err
    assert set(inside.files("n")) == {
        "high_noise_model/high_noise_fp8.safetensors",
        "low_noise_model/low_noise_fp8_1030.safetensors",
        "text-bf16.pth",
        "vae.pth",
    }


def test_optional_parts_and_loras_when_they_are_asked_for(inside: Inside) -> None:
    assert inside("acme-small", "--with", "tiny_vae").status == 0
    assert inside.files("models/Small") == {**SMALL, "tiny.pth": 4000}
    done = inside("acme", "--lora", "--to", "models/Small")
    assert done.status == 0, done.err
    assert inside.files("models/Small")["loras/lora.safetensors"] == 2000
    assert "--lora models/Small/loras/lora.safetensors" in done.out
    assert (
        "acme-parts has only optional components; select them with --with: tiny_vae"
        in inside("acme-parts").err
    )
    assert inside("acme-parts", "--with", "tiny_vae", "--to", "p").status == 0
    assert inside.files("p") == {"tiny.pth": 4000}


def test_the_commands_of_the_guides_work_as_they_are(download: Download) -> None:
    """``huggingface-cli download`` becomes ``lightx2v-core download``: exactly the named files, with the same paths."""
    done = download(
        "acme/Turbo", "--local-dir", "./m", "--include", "turbo_fp8.safetensors", "--resume-download"
    )
    assert done.status == 0, done.err
    assert set(download.files("m")) == {"turbo_fp8.safetensors"}
    assert (
        download("acme/turbo", "turbo_int8.safetensors", "--local-dir", "m").status == 0
    )  # as hf names files
    assert set(download.files("m")) == {"turbo_fp8.safetensors", "turbo_int8.safetensors"}
    assert (
        download("acme/Pair", "--include", "q/*", "--include", "*_fp8.safetensors", "--to", "n").status == 0
    )
    assert set(download.files("n")) == {"q/text-fp8.pth", "high_noise_fp8.safetensors"}
    assert download("acme/Small", "--include", "*", "--exclude", "assets/*", "--to", "o").status == 0
    assert set(download.files("o")) == {*SMALL, "tok/spiece.model", "README.md"}


def test_any_other_repository(inside: Inside) -> None:
    done = inside("stranger/Tune")
    assert done.status == 0, done.err
    assert set(inside.files("models/Tune")) == {
        "models/net-00001-of-00001.safetensors", "models/config.json", "vae.pth",
    }  # fmt: skip
    assert "left out: samples/a.mp4" in done.out
    assert inside("stranger/One").status == 0
    assert set(inside.files("models/One")) == {"my-tune.safetensors"}
    many = inside("stranger/Many")
    assert many.status == 2
    assert "--include" in many.err
    assert "a.safetensors" in many.err
    refused = inside("stranger/Tune", "--precision", "fp8")
    assert refused.status == 2
    assert (
        "no loaded plugin knows stranger/Tune, so --precision cannot apply; name files with --include"
        in refused.err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("acme", "--task", "t2v"), "'acme' matches more than one model; choose one by name:\n  acme-small "),
        (("acme-smal",), "unknown download 'acme-smal'; did you mean 'acme-small'?"),
        (("small",), None),
        (("acme/Small", "--task", "i2v"), "'acme/Small' has no download for --task i2v; available:\n  acme-small "),
        (("acme-small", "--precision", "fp8"), "'acme-small' has no files in fp8; available:\n  acme-small "),
        (("acme-pair", "--precision", "text_encoder=int8"), "text_encoder of acme-pair is available in fp8, original"),
        (("acme-small", "--precision", "text=fp8"), "has no component 'text'; it has: dit, config, text_encoder"),
        (("acme-small", "--precision", "=fp8"), "--precision: expected NAME or COMPONENT=NAME, got '=fp8'"),
        (("acme-small", "--with", "tiny_va"), "no such optional component; available: tiny_vae; did you mean"),
        (("acme-small", "--include", "x", "--precision", "fp8"), "--include names files, --precision selects them"),
        (("acme/Small", "--include", "vea.pth"), "no file of acme/Small matches 'vea.pth'; did you mean 'vae.pth'?"),
        (("acme-small", "--exclude", "nothing"), "--exclude 'nothing' matches none of the selected files"),
        (("acme", "--include", "*"), "--include needs one repository, and 'acme' is a family of models"),
        ((), "no download is named; `lightx2v-core download --list` lists the known names"),
        (("a/b/c",), "unknown download 'a/b/c'"),
        (("nobody/Nothing",), "has no repository nobody/Nothing, or it is private: check the name, or log in with"),
        (("acme-small", "--revision", "v9"), "acme/Small has no revision 'v9'; omit --revision"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_what_cannot_be_meant_is_one_message(
    inside: Inside, arguments: tuple[str, ...], message: str | None
) -> None:
    done = inside(*arguments, "--dry-run")
    if message is None:  # the last part of a repository's name is enough
        assert done.status == 0, done.err
        return
    assert done.status == 2
    assert done.err.startswith("error: ")
    assert message in done.err
    assert list(Path().iterdir()) == []


def test_a_family_with_its_task_and_its_old_names(inside: Inside) -> None:
    assert "acme/Large" in inside("acme", "--task", "i2v", "--dry-run").out
    assert "acme/Turbo" in inside("acme", "--task", "i2v", "--distilled", "--dry-run").out
    assert "acme/Turbo" in inside("acme_distill", "--task", "i2v", "--dry-run").out
    listed = inside("--list").out
    assert [line.split()[0] for line in listed.splitlines()][1:3] == ["acme-small", "acme-large"]
    assert {entry["name"] for entry in json.loads(inside("--list", "--json").out)} >= {
        "acme-turbo",
        "acme-lora",
    }


def test_dry_run_writes_nothing_and_json_says_all(inside: Inside, hub: Hub) -> None:
    done = inside("acme-turbo", "--precision", "fp8", "--dry-run", "--json")
    assert done.status == 0, done.err
    (event,) = done.events
    assert event["event"] == "download"
    assert event["total"] == event["missing"] == 400_000 + 20 + 100_000 + 1000 + 50_000
    keys = ("repo", "target", "component", "precision", "state")
    assert {tuple(file[key] for key in keys) for file in event["files"]} == {
        ("acme/Turbo", "turbo_fp8.safetensors", "dit", "fp8", "absent"),
        ("acme/Large", "config.json", "config", "", "absent"),
        ("acme/Large", "text-bf16.pth", "text_encoder", "original", "absent"),
        ("acme/Large", "tok/tokenizer.json", "tokenizer", "", "absent"),
        ("acme/Large", "vae.pth", "vae", "", "absent"),
    }  # fmt: skip
    assert [file["path"] for file in event["left_out"]] == [
        "turbo_int8.safetensors",
        "turbo_original.safetensors",
    ]
    assert list(inside.folder.iterdir()) == []
    assert dict(hub.sent) == {}


def test_json_is_events_only(inside: Inside) -> None:
    done = inside("acme-small", "--json")
    assert done.status == 0
    events = done.events
    kinds = [event["event"] for event in events if event["event"] != "progress"]
    assert kinds == ["download", "phase", "phase_done", "downloaded"]
    assert events[1]["total"] == sum(SMALL.values())
    progress = [event["done"] for event in events if event["event"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == sum(SMALL.values())
    assert events[-1]["fetched"] == sum(SMALL.values())
    failed = inside("nobody/Nothing", "--json")
    assert (failed.status, failed.events[-1]["event"], failed.events[-1]["exit_status"]) == (2, "error", 2)
