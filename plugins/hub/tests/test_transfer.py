"""Transfers of ``lightx2v-core download``: interrupted and resumed, data kept, and all failures."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightx2v_core.testing.hub import Hub

from .conftest import NET, SMALL, Download, Inside, Start, content, partials


def test_a_dropped_connection_goes_on_where_it_ended(inside: Inside, hub: Hub) -> None:
    hub.dropped[f"acme/Small/{NET}"] = [100_000, 120_000]
    assert inside("acme-small").status == 0
    assert inside.files("models/Small") == SMALL
    assert hub.sent[f"acme/Small/{NET}"] == 300_000
    starts = [asked.start for asked in hub.asked if asked.path == f"/stored/acme/Small/{NET}"]
    assert starts == [0, 100_000, 220_000]


def size_of(partial: Path) -> int:
    """Return the size of a partial file; 0 if it was published in the meantime."""
    try:
        return partial.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.load
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)],
    ids=lambda value: getattr(value, "name", ""),
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
    while not any(size_of(path) > 400_000 for path in partials(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    if status == 130:
        assert err.endswith("interrupted; downloaded data is kept; run the same command again to resume\n")
    assert not (folder / NET).exists()
    (partial,) = [path for path in partials(folder) if path.stat().st_size > 400_000]
    begun = partial.stat().st_size
    assert begun < size
    hub.pause = 0.0
    time.sleep(0.5)  # bytes that the server still sends to the closed connection are counted
    hub.sent.clear()
    dry = download("acme-small", "--dry-run")
    assert re.search(rf"  {NET} +2.9 MiB  dit \(original\), \d+\.\d [KM]iB present", dry.out)
    assert download("acme-small").status == 0
    assert hub.sent[f"acme/Small/{NET}"] == size - begun
    assert (folder / NET).read_bytes() == content("large", size)
    assert partials(folder) == []


@pytest.mark.load
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_what_is_started_to_ignore_interrupts_does_so(download: Download, hub: Hub) -> None:
    """In the background of a script, which must ignore Ctrl-C."""
    hub.pause = 0.2
    prefix = ("sh", "-c", 'trap "" INT; "$@" & sleep 2; kill -INT $!; wait $!', "sh")
    done = download("acme-small", prefix=prefix)
    assert done.status == 0, done.err
    assert download.files("models/Small") == SMALL


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
    assert "acme/Small/vae.pth does not match the hash listed by the hub and was deleted" in done.err
    assert "vae.pth" not in inside.files("models/Small")
    hub.forged = {"acme/Small/config.json": b"x" * 20}  # a file stored in git, checked by its blob hash
    done = inside("acme-small", "--to", "m", "--include", "*.json", "--include", "vae.pth")
    assert "config.json does not match the hash listed by the hub" in done.err
    hub.forged.clear()
    assert inside("acme-small").status == 0
    assert inside.files("models/Small") == SMALL


def test_a_begun_file_that_does_not_fit_is_fetched_anew(inside: Inside, hub: Hub) -> None:
    hub.dropped[f"acme/Small/{NET}"] = [100_000, 0, 0, 0, 0]
    done = inside("acme-small")
    assert done.status == 1
    assert f"acme/Small/{NET}" in done.err
    assert "downloaded data is kept; run the same command again to resume" in done.err
    (partial,) = partials(inside.folder)
    assert partial.stat().st_size == 100_000
    partial.write_bytes(b"\0" * partial.stat().st_size)  # a crash of the machine may leave holes
    hub.dropped.clear()
    done = inside("acme-small")
    assert done.status == 0, done.err
    assert f"{NET}: partial download does not match; restarting" in done.err
    assert (inside.folder / "models/Small" / NET).read_bytes() == content(f"acme/Small/{NET}", 300_000)


def test_a_file_that_changed_on_the_hub_is_fetched_again(inside: Inside, hub: Hub) -> None:
    assert inside("acme-small").status == 0
    hub.repos["acme/Small"]["vae.pth"] = content("new vae", 60_000)
    hub.sent.clear()
    assert "newer version on the hub" in inside("acme-small", "--dry-run").out
    assert inside("acme-small").status == 0
    assert dict(hub.sent) == {"acme/Small/vae.pth": 60_000}
    assert (inside.folder / "models/Small/vae.pth").read_bytes() == content("new vae", 60_000)


def test_what_is_there_already_is_kept_or_asked_about(inside: Inside, hub: Hub) -> None:
    folder = inside.folder / "m"
    folder.mkdir()
    (folder / "vae.pth").write_bytes(
        content("acme/Small/vae.pth", 50_000)
    )  # from elsewhere, with the same content
    (folder / "text-bf16.pth").write_bytes(b"mine" * 25_000)  # same size, different content
    (folder / "config.json").write_text("{}")
    assert "vae.pth" in inside("acme-small", "--to", "m", "--dry-run").out
    done = inside("acme-small", "--to", "m")
    assert done.status == 1
    assert "has different files with these names; --force replaces them, --exclude keeps them:" in done.err
    assert done.err.splitlines()[-2:] == [
        "  config.json (2 bytes; in the repository 20 bytes)",
        "  text-bf16.pth (97.7 KiB; in the repository 97.7 KiB)",
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
    """Files of ``hf download --local-dir`` are recognized as whole, and vice versa."""
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
        (500, 1, "failed with HTTP status 500 for acme/Small; try again later; downloaded data is kept"),
        (
            403,
            2,
            "denied access to acme/Small (403): the token lacks read permission; log in with `hf auth login`",
        ),
        (429, 1, "limits the rate of requests (429) for acme/Small; wait, or log in with"),
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
    assert (
        "acme/Small/vae.pth not found (404); it may have moved since it was listed; run the same" in done.err
    )


def test_gated_repositories(download: Download, hub: Hub) -> None:
    hub.gated["acme/Small"] = "secret"
    done = download("acme-small")
    assert done.status == 2
    assert (
        f"acme/Small is gated: accept its conditions at {hub.url}/acme/Small, log in with `hf auth login` or set "
        "HF_TOKEN, and run the same command again" in done.err
    )
    assert "is gated" in download("acme-small", HF_TOKEN="wrong").err
    assert download("acme-small", HF_TOKEN="secret").status == 0
    assert download.files("models/Small") == SMALL
    elsewhere = {asked.token for asked in hub.asked if asked.path.startswith("/stored/")}
    assert elsewhere == {None}, "the token is for the hub, not for where it sends its files from"


@pytest.mark.load
def test_no_way_to_the_hub(download: Download, hub: Hub) -> None:
    done = download("acme-small", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.status == 1
    assert "error: connection to http://127.0.0.1:9 failed for acme/Small" in done.err
    assert "HF_ENDPOINT sets a mirror" in done.err
    done = download("acme-small", HF_HUB_OFFLINE="1")
    assert done.status == 2
    assert (
        "cannot fetch acme/Small: HF_HUB_OFFLINE is set; unset it, or copy the files into the folder"
        in done.err
    )
    hub.login_page = True
    done = download("acme-small")
    assert done.status == 1
    assert "does not respond like a hub" in done.err


@pytest.mark.parametrize(
    "path",
    ["../evil.safetensors", "/etc/evil", "a/../../evil", "C:/evil", "a\\..\\evil", "a//b", "./a", "tok/\x1b[2Jevil",
     ".cache/huggingface/download/vae.pth.metadata", "nul\0l"],
    ids=repr,
)  # fmt: skip
def test_no_path_of_a_listing_leaves_the_folder(inside: Inside, hub: Hub, path: str) -> None:
    hub.repos["acme/Small"][path] = b"evil"
    for arguments in (("--include", "*"), ()):  # whether the file would be selected or not
        done = inside("acme-small", *arguments, "--to", "m")
        assert done.status == 2
        assert f"acme/Small has a file with an unsafe path {path!r}" in done.err
        assert "the repository is rejected" in done.err
    assert list(Path().rglob("*")) == []


def test_a_full_disk(download: Download, hub: Hub) -> None:
    """A limit of file sizes simulates a disk that fills up: both end a write early."""
    code = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    limited = (sys.executable, "-c", code)
    done = download("acme-small", prefix=limited)
    assert done.status == 1
    assert "no space left in" in done.err
    assert "downloaded data is kept; run the same command again to resume" in done.err
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
    assert "not enough space in " in done.err
    assert dict(hub.sent) == {}


def test_folders_that_cannot_be_written(inside: Inside) -> None:
    (inside.folder / "m").write_text("a file")
    done = inside("acme-small", "--to", "m")
    assert done.status == 1
    assert f"cannot write m/{NET}: its folder is a file" in done.err
    (inside.folder / "n/vae.pth").mkdir(parents=True)
    assert "is a folder, so acme/Small/vae.pth cannot be saved there" in inside("acme-small", "--to", "n").err


@pytest.mark.load
def test_two_downloads_do_not_write_to_one_folder(download: Download, start: Start, hub: Hub) -> None:
    hub.repos["acme/Small"][NET] = content("large", 3_000_000)
    hub.pause = 1.0
    first = start("acme-small")
    deadline = time.monotonic() + 60
    while not partials(download.folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = download("acme-small")
    assert second.status == 2
    assert f"models/Small: process {first.pid} on {os.uname().nodename} since 20" in second.err
    hub.pause = 0.0
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert download.files("models/Small") == {**SMALL, NET: 3_000_000}


def test_a_listing_in_pages(inside: Inside, hub: Hub) -> None:
    for number in range(120):
        hub.repos["acme/Small"][f"samples/{number:03}.txt"] = b"x"
    assert inside("acme-small").status == 0
    assert inside.files("models/Small") == SMALL
