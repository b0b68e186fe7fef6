"""Run the commands of a page and draw each video as a row of its frames, for docs/mini.md.

    python tools/mini/strips.py examples/mini.md --output docs/pictures

All ``sh`` blocks are run in a new folder that has the repository's ``configs`` and ``examples``; ``lightx2v-core`` is
that of this Python, and a failing command is an error. ``NAME.mp4`` becomes ``NAME.png``, its frames enlarged by an
integer factor.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import torch
from torch import Tensor

from evaluate import contact_sheet
from lightx2v_core.runtime.video import png_bytes, write_bytes

REPOSITORY = Path(__file__).resolve().parents[2]
ENLARGED = 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder of the images")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name, clip in videos(args.page.read_text(encoding="utf-8")):
        enlarged = clip.repeat_interleave(ENLARGED, 2).repeat_interleave(ENLARGED, 3)
        write_bytes(args.output / f"{name}.png", png_bytes(contact_sheet([enlarged])))
        print(args.output / f"{name}.png", flush=True)


def commands(page: str) -> list[list[str]]:
    """Return the commands of all ``sh`` blocks, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [shlex.split(line) for line in lines]


def videos(page: str) -> Iterator[tuple[str, Tensor]]:
    """Run the commands; yields name and frames of each video they write, ``[3, F, H, W]`` in [-1, 1]."""
    with TemporaryDirectory() as folder:
        for name in ("configs", "examples"):
            (Path(folder) / name).symlink_to(REPOSITORY / name)
        for program, *rest in commands(page):
            start = [sys.executable, "-m", "lightx2v_core"] if program == "lightx2v-core" else [program]
            before = set(Path(folder).glob("*.mp4"))
            subprocess.run([*start, *rest], cwd=folder, check=True)
            for path in sorted(set(Path(folder).glob("*.mp4")) - before):
                yield path.stem, read(path)


def read(path: Path) -> Tensor:
    """Read the frames of a video file, ``[3, F, H, W]`` in [-1, 1]."""
    with av.open(str(path)) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(frames).permute(3, 0, 1, 2) / 127.5 - 1


if __name__ == "__main__":
    main()
