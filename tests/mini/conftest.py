"""The tools of the mini checkpoints are plain modules in ``tools/mini``; scripts there find each other by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "mini"))
