"""The clips that the web page shows before a first video: ``python docs/ui_samples.py``.

Generates one clip for each checkpoint that comes with a plugin and needs only a prompt, and for each language of the
page, from the first example prompt of the checkpoint in that language. Writes
plugins/gradio/src/lightx2v_gradio/samples/*.mp4 and samples.json. Needs lightx2v-mini, -wan21, -wan22 and -gradio.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from lightx2v_core.api import load, load_plugins
from lightx2v_gradio.form import prompts
from lightx2v_gradio.options import ModelSource, find_options
from lightx2v_gradio.texts import TEXTS

SAMPLES = (
    Path(__file__).resolve().parent.parent / "plugins" / "gradio" / "src" / "lightx2v_gradio" / "samples"
)
SEED = 1
#: a clip in the page is not larger than this, in bytes
LARGEST = 10_000


def main() -> None:
    """Generate every clip."""
    plugins = load_plugins()
    SAMPLES.mkdir(exist_ok=True)
    for old in SAMPLES.glob("*.mp4"):
        old.unlink()
    index: dict[str, dict[str, dict[str, object]]] = {}
    for name in sorted(provided.spec.name for provided in plugins.provided("checkpoint")):
        options = find_options(ModelSource(folder=name), plugins)
        if options.required or not options.examples:
            continue
        pipeline = load(name, plugins=plugins)
        for language, texts in TEXTS.items():
            prompt = prompts(options, texts)[0]
            file = f"{name}.{language}.mp4"
            with tempfile.TemporaryDirectory() as folder:
                clip = pipeline.write(Path(folder) / file, prompt=prompt, seed=SEED).read_bytes()
            if len(clip) > LARGEST:
                raise SystemExit(f"{file} has {len(clip)} bytes, more than {LARGEST}")
            (SAMPLES / file).write_bytes(clip)
            index.setdefault(name, {})[language] = {"file": file, "prompt": prompt, "seed": SEED}
            sys.stdout.write(f"{file}: {len(clip)} bytes, {prompt}\n")
        pipeline.close()
    text = json.dumps(index, ensure_ascii=False, indent=2)
    (SAMPLES / "samples.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
