"""``python -m lightx2v_core.testing tiny FOLDER``: writes a tiny checkpoint with random weights for experiments."""

from __future__ import annotations

from pathlib import Path

import click

from lightx2v_core.discovery.plugins import load_plugins
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import LightX2VError, PluginError
from lightx2v_core.spec.specs import ModelSpec

#: marker file of a folder written by ``tiny``, which may be overwritten
MARKER = "TINY"


@click.group()
def cli() -> None:
    """Try out and test plugins."""


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", metavar="NAME", help="Model family to write; not needed if only one is installed.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random weights.")
def tiny(folder: Path, model: str | None, seed: int) -> None:
    """Write a tiny checkpoint of a model family into FOLDER, in its own layout, with random weights."""
    try:
        registry = Registry(load_plugins())
        model = model or _only(registry)
        spec = registry.find(ModelSpec, model).spec
        if spec.write_tiny is None:
            raise PluginError(f"model {model!r} cannot write a tiny checkpoint")
        if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
            raise PluginError(f"{str(folder)!r} is not empty and not a tiny checkpoint; choose a new folder")
    except LightX2VError as exc:
        raise click.ClickException(str(exc)) from None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(
        f"a tiny {model} checkpoint with random weights, seed {seed}\n", encoding="utf-8"
    )
    spec.write_tiny(folder, seed)
    click.echo(f"wrote a tiny {model} checkpoint to {folder}")


def _only(registry: Registry) -> str:
    """Return the only installed model that writes tiny checkpoints. Raises ``PluginError`` for none or several."""
    names = [model.spec.name for model in registry.candidates(ModelSpec) if model.spec.write_tiny is not None]
    if not names:
        raise PluginError("no installed model writes tiny checkpoints; install a model plugin")
    if len(names) > 1:
        raise PluginError(
            f"several installed models write tiny checkpoints; choose one: --model {' or '.join(names)}"
        )
    return names[0]


if __name__ == "__main__":
    cli()
