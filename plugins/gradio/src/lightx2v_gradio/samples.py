"""Clips that come with the page, for models that come with a plugin: shown until a session has a video of its own.

``samples/samples.json`` maps checkpoint and language to file, prompt and seed; ``docs/ui_samples.py`` generates all of
them with the models themselves.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from attrs import frozen

from lightx2v_gradio.options import FolderOptions


@frozen(kw_only=True)
class Sample:
    """A short MP4 clip, and the prompt and seed that reproduce it."""

    prompt: str
    seed: int
    video: bytes


def find_sample(options: FolderOptions, language: str) -> Sample | None:
    """Return the clip of a model in a language of the page; None for models without one.

    A folder on disk is another model than the checkpoint of its name: it has no prompts of its own.
    """
    entry = _index().get(options.source.folder, {}).get(language) if options.examples else None
    if entry is None:
        return None
    video = resources.files(__package__).joinpath("samples").joinpath(entry["file"]).read_bytes()
    return Sample(prompt=entry["prompt"], seed=entry["seed"], video=video)


@cache
def _index() -> dict[str, Any]:
    index: dict[str, Any] = json.loads(
        resources.files(__package__).joinpath("samples").joinpath("samples.json").read_text(encoding="utf-8")
    )
    return index
