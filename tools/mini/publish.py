"""Copy trained checkpoints into the distribution, each with its evaluation figures.

    python tools/mini/publish.py --work mini-train --into plugins/mini/src/lightx2v_mini/checkpoints \
        t2v=out/t2v/report.json i2v=out/i2v/report.json loras=out/lora/report.json

The first folder contains the VAE and the text encoder, which the others share. Each report is one of ``evaluate.py``;
checkpoints without one are not published. ``card.json`` records training data, settings and results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from layouts import T2V, TEXT_FILE, VAE_FILE
from lightx2v_core.runtime.video import write_bytes

#: adapters, in the folder of their base checkpoint, and published after it
LORAS = "loras"
#: training logs of each folder
LOGS = {
    "t2v": ("vae", "sharp", "decoder", "text", "t2v"),
    "i2v": ("i2v",),
    "experts": ("high_noise", "low_noise"),
    "t2v-4step": ("distill",),
    LORAS: ("lora",),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=REPORT", help=f"names: {', '.join(LOGS)}")
    args = parser.parse_args()
    for text in args.checkpoints:
        name, _, report = text.partition("=")
        if name not in LOGS or not report:
            parser.error(f"{text!r} is not NAME=REPORT; names are {', '.join(LOGS)}")
        publish(args.work, name, json.loads(Path(report).read_text(encoding="utf-8")), args.into)


def publish(work: Path, name: str, report: dict[str, Any], into: Path) -> None:
    """Replace one folder, and its entry in the card."""
    source = work / "checkpoints" / name
    target = into / T2V / LORAS if name == LORAS else into / name
    shared = set() if name == T2V else {VAE_FILE, TEXT_FILE, "tokenizer.json"}
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(path for path in source.rglob("*") if path.is_file() and path.name not in shared):
        # a further trained decoder is newer than the copy in the folder
        content = (work / VAE_FILE if path.name == VAE_FILE else path).read_bytes()
        where = target / path.relative_to(source)
        where.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(where, content)
    card = into / "card.json"
    known = json.loads(card.read_text(encoding="utf-8")) if card.exists() else {}
    known[name] = {
        "files": {
            path.relative_to(into).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(target.rglob("*"))
            if path.is_file()
        },
        "training": [_trained(work / f"{log}.json") for log in LOGS[name] if (work / f"{log}.json").exists()],
        "reached": {key: value for key, value in report.items() if key != "told"},
        "evaluated_with": {
            key: value for key, value in report["told"].items() if key not in ("work", "checkpoint", "least")
        },
    }
    write_bytes(card, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{name}: {size / 1e6:.1f} MB")


def _trained(log: Path) -> dict[str, Any]:
    told = json.loads(log.read_text(encoding="utf-8"))
    kept = ("name", "settings", "notes", "parameters", "steps_done", "seconds", "threads", "torch")
    return {**{key: told[key] for key in kept}, "last_loss": told["losses"][-1][1]}


if __name__ == "__main__":
    main()
