"""Generate held-out prompts with a checkpoint, and judge how many attributes of each are right.

    python tools/mini/evaluate.py mini-train/checkpoints/t2v --work mini-train/t2v-test
    python tools/mini/evaluate.py mini-train/checkpoints/t2v-4step --steps 4 --guide-scale 1 --shift 5 --work ...
    python tools/mini/evaluate.py mini-train/checkpoints/t2v --lora mini-train/checkpoints/loras/framed.safetensors ...
    python tools/mini/evaluate.py mini-train/checkpoints/t2v-fp8 --against mini-train/checkpoints/t2v --work ...
    python tools/mini/evaluate.py mini-train/checkpoints/i2v --images --work ...

Scenes are of held-out combinations. Prints accuracies in percent, and writes ``report.json`` and ``sheet.png`` (one row
per clip, first to last frame) to ``--work``. With ``--images`` the first frame of each scene is an input, and the PSNR
of the first frame is printed; with ``--against`` the PSNR to the videos of another checkpoint for the same prompts and
seeds. ``--truth`` judges the rendered scenes instead of generated ones: the figures of a perfect network. Exit status 1
when ``--least NAME=PERCENT`` is missed.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from judge import agreement, judge
from lightx2v_core import Pipeline, load
from lightx2v_core.runtime.video import png_bytes, to_uint8, write_bytes
from prompts import prompt
from sizes import SHIFT
from world import Look, Scene, render, scenes

#: rows and frames of a contact sheet, and pixels between them
ROWS, COLUMNS, GAP = 12, 9, 2


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the report and the contact sheet")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shift", type=float, default=SHIFT, help="5 for distilled networks")
    parser.add_argument("--guide-scale", type=float, default=5.0)
    parser.add_argument("--scheduler", help="default: the checkpoint's")
    parser.add_argument("--lora", type=Path)
    parser.add_argument("--expect", choices=("none", "framed"), help="the look; default: framed with --lora")
    parser.add_argument("--images", action="store_true", help="use the first frame as input (image-to-video)")
    parser.add_argument(
        "--against",
        type=Path,
        help="another checkpoint to compare frames with; all other options apply to both",
    )
    parser.add_argument("--truth", action="store_true", help="judge the rendered scenes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--least", action="append", default=[], metavar="NAME=PERCENT")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    look: Look = args.expect or ("framed" if args.lora else "none")
    make = _drawn(args, look) if args.truth else _generated(args.checkpoint, args)
    other = _generated(args.against, args) if args.against else None
    report, sheet = evaluate(jobs(args.prompts, args.seeds), make, other, look=look, images=args.images)
    args.work.mkdir(parents=True, exist_ok=True)
    # the report becomes part of a published card, where paths of this machine are meaningless
    given = {name: value for name, value in vars(args).items() if value not in (None, [])}
    told = {name: value.name if isinstance(value, Path) else str(value) for name, value in given.items()}
    write_bytes(args.work / "report.json", (json.dumps({"told": told, **report}, indent=1) + "\n").encode())
    write_bytes(args.work / "sheet.png", png_bytes(contact_sheet(sheet)))
    for name, value in report.items():
        print(f"{name:12} {value:g}")
    return _missed(report, args.least)


def jobs(count: int, seeds: int) -> Iterator[tuple[Scene, str, int]]:
    """Yield the scenes of held-out combinations with one shape, a prompt for each, and every seed."""
    for index, scene in enumerate(islice(scenes(97, split="test", two=0.0), count)):
        for seed in range(seeds):
            yield scene, prompt(scene, 10**6 + index), seed


Make = Callable[[Scene, str, int], Tensor]
"""A clip ``[3, F, H, W]`` for a scene, its prompt and a seed."""


def evaluate(
    requests: Iterator[tuple[Scene, str, int]],
    make: Make,
    other: Make | None = None,
    *,
    look: Look = "none",
    images: bool = False,
) -> tuple[dict[str, float], list[Tensor]]:
    """Compute the figures, and collect the clips of the contact sheet.

    Figures are percentages of the clips; PSNR is the mean, in dB.
    """
    right, total = Counter[str](), 0
    sheet: list[Tensor] = []
    first_frames: list[float] = []
    same: list[float] = []
    for scene, text, seed in requests:
        clip = make(scene, text, seed)
        right.update(name for name, fits in agreement(scene, judge(clip), look=look).items() if fits)
        total += 1
        if images:
            shown = render(scene, side=clip.shape[2], frames=1)
            first_frames.append(psnr(clip[:, :1], shown))
        if other is not None:
            same.append(psnr(clip, other(scene, text, seed)))
        if len(sheet) < ROWS:
            sheet.append(clip)
    names = ("colour", "shape", "direction", "ground", "size", "speed", "kind", "second", "look")
    report = {"clips": float(total), **{name: round(100 * right[name] / total, 2) for name in names}}
    if first_frames:
        report["psnr_first"] = round(sum(first_frames) / total, 2)
    if same:
        report["psnr_same"] = round(sum(same) / total, 2)
    return report, sheet


def psnr(one: Tensor, other: Tensor) -> float:
    """Compute the peak signal-to-noise ratio of pixels in [-1, 1], in dB; at most 99."""
    error = float(((one.clamp(-1, 1) - other.clamp(-1, 1)) ** 2).mean())
    return min(10 * float(torch.log10(torch.tensor(4.0 / max(error, 1e-12)))), 99.0)


def contact_sheet(clips: Sequence[Tensor], *, columns: int = COLUMNS) -> Tensor:
    """Draw one row per clip, with ``columns`` frames from first to last: uint8 ``[H, W, 3]`` on white."""
    rows = []
    for clip in clips:
        picked = torch.linspace(0, clip.shape[1] - 1, min(columns, clip.shape[1])).round().long()
        rows.append(_side_by_side(list(to_uint8(clip[:, picked])), axis=1))
    sheet = _side_by_side(rows, axis=0)
    # even sizes, as video encoders need them
    return torch.nn.functional.pad(sheet, (0, 0, 0, sheet.shape[1] % 2, 0, sheet.shape[0] % 2), value=255)


def _side_by_side(images: list[Tensor], axis: int) -> Tensor:
    parts: list[Tensor] = []
    for image in images:
        size = list(image.shape)
        size[axis] = GAP
        parts += [image, torch.full(size, 255, dtype=torch.uint8)]
    return torch.cat(parts[:-1], dim=axis)


def _generated(checkpoint: Path, args: argparse.Namespace) -> Make:
    given: dict[str, Any] = {
        "size": (args.side, args.side),
        "frames": args.frames,
        "negative_prompt": "",
        "steps": args.steps,
        "shift": args.shift,
        "guide_scale": (args.guide_scale,),
        "device": "cpu",
        "dtype": "float32",
    }
    if args.scheduler:
        given["scheduler"] = args.scheduler
    if args.lora:
        given["loras"] = [str(args.lora)]
    pipeline: Pipeline = load(checkpoint, **given)

    def make(scene: Scene, text: str, seed: int) -> Tensor:
        request: dict[str, Any] = {"prompt": text, "seed": seed}
        if args.images:
            request["image"] = render(scene, side=args.side, frames=1)[:, 0]
        return pipeline.generate(**request).frames

    return make


def _drawn(args: argparse.Namespace, look: Look) -> Make:
    return lambda scene, text, seed: render(scene, side=args.side, frames=args.frames, look=look)


def _missed(report: dict[str, float], least: Sequence[str]) -> int:
    """Compare the figures with their bounds: 1 if one is below, else 0. ``SystemExit`` for an unknown figure."""
    status = 0
    for text in least:
        name, _, bound = text.partition("=")
        if name not in report:
            raise SystemExit(f"--least {text}: unknown figure {name!r}; available: {', '.join(report)}")
        if report[name] < float(bound):
            print(f"missed: {name} is {report[name]:g}, below {bound}")
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
