"""``lightx2v-core download`` against a hub on this machine: what is fetched, what is kept, and every way to fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightx2v_core.testing.hub import Hub

from .conftest import Download, Inside, Start, content

SMALL = {
    "net-00001-of-00002.safetensors": 300_000, "net-00002-of-00002.safetensors": 200_000,
    "net.safetensors.index.json": 200, "config.json": 20, "text-bf16.pth": 100_000, "tok/tokenizer.json": 1000,
    "vae.pth": 50_000,
}  # fmt: skip
NET = "net-00001-of-00002.safetensors"


def partials(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.incomplete"))


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
    assert "of which 0 bytes to fetch" in download("acme-small").out  # the same by its name
    assert not [item for item in hub.asked if not item.path.startswith("/api/")]


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
    note = "note: text_encoder: there is no fp8, so the original"
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
    assert "acme-parts holds optional parts only; take some with --with: tiny_vae" in inside("acme-parts").err
    assert inside("acme-parts", "--with", "tiny_vae", "--to", "p").status == 0
    assert inside.files("p") == {"tiny.pth": 4000}


def test_the_commands_of_the_guides_work_as_they_are(download: Download) -> None:
    """``huggingface-cli download`` becomes ``lightx2v-core download``: exactly the files named, where they were."""
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
    told = inside("stranger/Tune", "--precision", "fp8")
    assert told.status == 2
    assert "no loaded plugin knows stranger/Tune, so --precision has no meaning for it" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("acme", "--task", "t2v"), "'acme' means more than one model; give the name of one:\n  acme-small "),
        (("acme-smal",), "unknown download 'acme-smal'; did you mean 'acme-small'?"),
        (("small",), None),
        (("acme/Small", "--task", "i2v"), "'acme/Small' has nothing for --task i2v; there is:\n  acme-small "),
        (("acme-small", "--precision", "fp8"), "'acme-small' has nothing in fp8; there is:\n  acme-small "),
        (("acme-pair", "--precision", "text_encoder=int8"), "the text_encoder of acme-pair comes in fp8, original"),
        (("acme-small", "--precision", "text=fp8"), "has no component 'text'; it has: dit, config, text_encoder"),
        (("acme-small", "--precision", "=fp8"), "--precision: expected NAME or COMPONENT=NAME, got '=fp8'"),
        (("acme-small", "--with", "tiny_va"), "is nothing optional of acme-small; there is: tiny_vae; did you mean"),
        (("acme-small", "--include", "x", "--precision", "fp8"), "--include names files and --precision lets the"),
        (("acme/Small", "--include", "vea.pth"), "acme/Small has no file like 'vea.pth'; did you mean 'vae.pth'?"),
        (("acme-small", "--exclude", "nothing"), "--exclude 'nothing' means none of the files chosen"),
        (("acme", "--include", "*"), "--include is for one repository, and 'acme' is a family of models"),
        ((), "nothing to download is named; `lightx2v-core download --list` shows what is known"),
        (("a/b/c",), "unknown download 'a/b/c'"),
        (("nobody/Nothing",), "has no repository nobody/Nothing, or it is private: check the name, or log in with"),
        (("acme-small", "--revision", "v9"), "acme/Small has no revision 'v9'; leave --revision out"),
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
    assert {item["name"] for item in json.loads(inside("--list", "--json").out)} >= {
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
    assert [item["path"] for item in event["left_out"]] == [
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


def test_a_dropped_connection_goes_on_where_it_ended(inside: Inside, hub: Hub) -> None:
    hub.dropped[f"acme/Small/{NET}"] = [100_000, 120_000]
    assert inside("acme-small").status == 0
    assert inside.files("models/Small") == SMALL
    assert hub.sent[f"acme/Small/{NET}"] == 300_000
    starts = [item.start for item in hub.asked if item.path == f"/stored/acme/Small/{NET}"]
    assert starts == [0, 100_000, 220_000]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_an_interrupted_download_goes_on_where_it_ended(
    download: Download, start: Start, hub: Hub, number: signal.Signals, status: int
) -> None:
    size = 3_000_000
    hub.repos["acme/Small"][NET] = content("large", size)
    hub.pause = 0.2
    folder = download.folder / "models/Small"
    process = start("acme-small")
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 400_000 for path in partials(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    if status == 130:
        assert err.endswith(
            "interrupted; what was fetched is kept, and the same command goes on from there\n"
        )
    assert not (folder / NET).exists()
    (partial,) = [path for path in partials(folder) if path.stat().st_size > 400_000]
    begun = partial.stat().st_size
    assert begun < size
    hub.pause = 0.0
    time.sleep(0.5)  # what the server still sends into the closed connection is counted
    hub.sent.clear()
    dry = download("acme-small", "--dry-run")
    assert "are there" in dry.out
    assert download("acme-small").status == 0
    assert hub.sent[f"acme/Small/{NET}"] == size - begun
    assert (folder / NET).read_bytes() == content("large", size)
    assert partials(folder) == []


def test_a_server_that_knows_no_ranges(inside: Inside, hub: Hub) -> None:
    hub.ranges = False
    hub.dropped[f"acme/Small/{NET}"] = [100_000]
    assert inside("acme-small").status == 0
    assert (inside.folder / "models/Small" / NET).read_bytes() == content(f"acme/Small/{NET}", 300_000)
    assert hub.sent[f"acme/Small/{NET}"] == 400_000


def test_another_content_than_listed_is_thrown_away(inside: Inside, hub: Hub) -> None:
    hub.forged["acme/Small/vae.pth"] = content("forged", 50_000)
    done = inside("acme-small")
    assert done.status == 1
    assert "acme/Small/vae.pth arrived with another content than the hub lists for it" in done.err
    assert "vae.pth" not in inside.files("models/Small")
    hub.forged = {"acme/Small/config.json": b"x" * 20}  # a file of git's own, known by its blob
    done = inside("acme-small", "--to", "m", "--include", "*.json", "--include", "vae.pth")
    assert "config.json arrived with another content" in done.err
    hub.forged.clear()
    assert inside("acme-small").status == 0
    assert inside.files("models/Small") == SMALL


def test_a_begun_file_that_does_not_fit_is_fetched_anew(inside: Inside, hub: Hub) -> None:
    hub.dropped[f"acme/Small/{NET}"] = [100_000, 0, 0, 0, 0]
    done = inside("acme-small")
    assert done.status == 1
    assert f"acme/Small/{NET}" in done.err
    assert "what was fetched is kept, and the same command goes on from there" in done.err
    (partial,) = partials(inside.folder)
    assert partial.stat().st_size == 100_000
    partial.write_bytes(b"\0" * partial.stat().st_size)  # a crash of the machine may leave holes
    hub.dropped.clear()
    done = inside("acme-small")
    assert done.status == 0, done.err
    assert "what was begun of it does not fit the rest; it is fetched anew" in done.err
    assert (inside.folder / "models/Small" / NET).read_bytes() == content(f"acme/Small/{NET}", 300_000)


def test_a_file_that_changed_on_the_hub_is_fetched_again(inside: Inside, hub: Hub) -> None:
    assert inside("acme-small").status == 0
    hub.repos["acme/Small"]["vae.pth"] = content("new vae", 60_000)
    hub.sent.clear()
    assert "newer on the hub" in inside("acme-small", "--dry-run").out
    assert inside("acme-small").status == 0
    assert dict(hub.sent) == {"acme/Small/vae.pth": 60_000}
    assert (inside.folder / "models/Small/vae.pth").read_bytes() == content("new vae", 60_000)


def test_what_is_there_already_is_kept_or_asked_about(inside: Inside, hub: Hub) -> None:
    folder = inside.folder / "m"
    folder.mkdir()
    (folder / "vae.pth").write_bytes(content("acme/Small/vae.pth", 50_000))  # from elsewhere, and the same
    (folder / "text-bf16.pth").write_bytes(b"mine" * 25_000)  # as large, and another
    (folder / "config.json").write_text("{}")
    assert "vae.pth" in inside("acme-small", "--to", "m", "--dry-run").out
    done = inside("acme-small", "--to", "m")
    assert done.status == 1
    assert "holds other files of these names; --force replaces them, --exclude leaves them:" in done.err
    assert done.err.splitlines()[-2:] == [
        "  config.json (2 bytes; the repository's has 20 bytes)",
        "  text-bf16.pth (97.7 KiB; the repository's has 97.7 KiB)",
    ]
    assert (folder / "config.json").read_text() == "{}"
    assert dict(hub.sent) == {}
    kept = inside("acme-small", "--to", "m", "--exclude", "config.json", "--exclude", "text-bf16.pth")
    assert kept.status == 0, kept.err
    assert "acme/Small/vae.pth" not in hub.sent
    assert (folder / "text-bf16.pth").read_bytes() == b"mine" * 25_000
    assert inside("acme-small", "--to", "m", "--force").status == 0
    assert inside.files("m") == SMALL


def test_folders_of_huggingface_hub_are_understood(download: Download, hub: Hub) -> None:
    """What ``hf download --local-dir`` fetched is known as whole, and the other way round."""
    code = (
        "import sys; from huggingface_hub import hf_hub_download as d\n"
        "print([d('acme/Small', name, local_dir='m') for name in sys.argv[1:]])"
    )
    args = [sys.executable, "-c", code, "vae.pth", "config.json"]
    subprocess.run(args, cwd=download.folder, env=download.env, check=True, capture_output=True)
    assert hub.sent["acme/Small/vae.pth"] == 50_000
    (download.folder / "m/vae.pth").chmod(0o400)
    hub.sent.clear()
    assert download("acme-small", "--to", "m").status == 0
    assert "acme/Small/vae.pth" not in hub.sent
    assert "acme/Small/config.json" not in hub.sent
    hub.sent.clear()
    subprocess.run([*args, NET], cwd=download.folder, env=download.env, check=True, capture_output=True)
    assert dict(hub.sent) == {}


@pytest.mark.parametrize(
    ("status", "end", "message"),
    [
        (500, 1, "answered 500 for acme/Small: it is in trouble; try again later; what was fetched is kept"),
        (403, 2, "refuses acme/Small (403): the token has no right to read it; log in with `hf auth login`"),
        (429, 1, "asks for a pause (429) before acme/Small"),
    ],
)
def test_a_hub_in_trouble(inside: Inside, hub: Hub, status: int, end: int, message: str) -> None:
    hub.broken["acme/Small"] = status
    done = inside("acme-small")
    assert done.status == end
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_a_file_that_is_gone(inside: Inside, hub: Hub) -> None:
    hub.broken["acme/Small/vae.pth"] = 404
    done = inside("acme-small")
    assert done.status == 2
    assert "acme/Small/vae.pth is not there (404); was it moved since it was listed?" in done.err


def test_gated_repositories(download: Download, hub: Hub) -> None:
    hub.gated["acme/Small"] = "secret"
    done = download("acme-small")
    assert done.status == 2
    assert (
        f"acme/Small is gated: accept its conditions at {hub.url}/acme/Small, then log in with `hf auth login` or set "
        "HF_TOKEN, and give the same command" in done.err
    )
    assert "is gated" in download("acme-small", HF_TOKEN="wrong").err
    assert download("acme-small", HF_TOKEN="secret").status == 0
    assert download.files("models/Small") == SMALL
    elsewhere = {item.token for item in hub.asked if item.path.startswith("/stored/")}
    assert elsewhere == {None}, "the token is for the hub, not for where it sends its files from"


def test_no_way_to_the_hub(download: Download, hub: Hub) -> None:
    done = download("acme-small", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.status == 1
    assert "the connection to http://127.0.0.1:9 failed for acme/Small" in done.err
    assert "HF_ENDPOINT names a mirror" in done.err
    done = download("acme-small", HF_HUB_OFFLINE="1")
    assert done.status == 2
    assert "acme/Small was not asked for: HF_HUB_OFFLINE is set; unset it, or copy the files here" in done.err
    hub.login_page = True
    done = download("acme-small")
    assert done.status == 1
    assert "does not answer like a hub" in done.err


@pytest.mark.parametrize(
    "path",
    ["../evil.safetensors", "/etc/evil", "a/../../evil", "C:/evil", "a\\..\\evil", "a//b", "./a", "tok/\x1b[2Jevil",
     ".cache/huggingface/download/vae.pth.metadata", "nul\0l"],
    ids=repr,
)  # fmt: skip
def test_no_path_of_a_listing_leaves_the_folder(inside: Inside, hub: Hub, path: str) -> None:
    hub.repos["acme/Small"][path] = b"evil"
    for arguments in (("--include", "*"), ()):  # whether the file would be taken or not
        done = inside("acme-small", *arguments, "--to", "m")
        assert done.status == 2
        assert f"acme/Small lists a file {path!r}" in done.err
        assert "nothing is fetched from such a repository" in done.err
    assert list(Path().rglob("*")) == []


def test_a_full_disk(download: Download, hub: Hub) -> None:
    """A file larger than this process may write stands for a disk that fills up: both end a write early."""
    code = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    limited = (sys.executable, "-c", code)
    done = download("acme-small", prefix=limited)
    assert done.status == 1
    assert "no space left in" in done.err
    assert "what was fetched is kept, and the same command goes on from there" in done.err
    assert NET not in download.files("models/Small")
    hub.sent.clear()
    assert download("acme-small").status == 0
    assert hub.sent[f"acme/Small/{NET}"] <= 150_000
    assert download.files("models/Small") == SMALL


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/proc/self/mounts").exists(), reason="mounts a small file system"
)
def test_too_little_space_is_said_before_anything_is_fetched(inside: Inside, hub: Hub) -> None:
    place = inside.folder / "m"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("this container may not mount")
    try:
        done = inside("acme-small", "--to", "m")
    finally:
        subprocess.run(["umount", place], check=True)
    assert done.status == 1
    assert "are to be fetched; free " in done.err
    assert dict(hub.sent) == {}


def test_folders_that_cannot_be_written(inside: Inside) -> None:
    (inside.folder / "m").write_text("a file")
    done = inside("acme-small", "--to", "m")
    assert done.status == 1
    assert "cannot be written" in done.err
    (inside.folder / "n/vae.pth").mkdir(parents=True)
    assert (
        "is a folder, and acme/Small/vae.pth is to be written there" in inside("acme-small", "--to", "n").err
    )


def test_two_downloads_do_not_write_to_one_folder(download: Download, start: Start, hub: Hub) -> None:
    hub.repos["acme/Small"][NET] = content("large", 3_000_000)
    hub.pause = 1.0
    first = start("acme-small")
    deadline = time.monotonic() + 60
    while not partials(download.folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = download("acme-small")
    assert second.status == 1
    assert "another download is writing to" in second.err
    hub.pause = 0.0
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert download.files("models/Small") == {**SMALL, NET: 3_000_000}


def test_a_listing_in_pages(inside: Inside, hub: Hub) -> None:
    for number in range(120):
        hub.repos["acme/Small"][f"samples/{number:03}.txt"] = b"x"
    assert inside("acme-small").status == 0
    assert inside.files("models/Small") == SMALL
