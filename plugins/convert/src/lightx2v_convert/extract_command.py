"""``lightx2v-core extract-lora``: writes the difference of two networks as a LoRA file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lightx2v_core.api import (
    common_options,
    current_interruption,
    cursor_stream,
    escaped,
    plugins_from,
    say,
)


@click.command("extract-lora")
@click.argument("base")
@click.argument("tuned")
@click.option("--output", required=True, metavar="FILE", help="The .safetensors file to write.")
@click.option(
    "--rank", type=click.IntRange(1, 4096), default=32, show_default=True, help="Rank of the LoRA matrices."
)
@click.option(
    "--min-elements",
    type=click.IntRange(0),
    default=1_000_000,
    show_default=True,
    help="Store smaller matrices as full differences, like all tensors that are not matrices.",
)
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True
)
@click.option("--component", metavar="NAME", help="Network of a two-expert model: high_noise or low_noise.")
@common_options
def command(
    base: str,
    tuned: str,
    output: str,
    rank: int,
    min_elements: int,
    dtype: str,
    component: str | None,
    **parameters: Any,
) -> None:
    """Extract a LoRA file that turns BASE into TUNED, which are model folders or weight files."""
    plugins = plugins_from(parameters)
    from lightx2v_convert.extract_lora import ExtractionOptions, extract

    how = ExtractionOptions(rank=rank, least=min_elements, dtype=dtype, component=component)
    show = sys.stderr.isatty()
    stream = cursor_stream()

    def tell(done: int, total: int, name: str) -> None:
        if show:
            stream.write(f"\r{done + 1}/{total} {escaped(name)[:60]:<60}")
            stream.flush()

    made = extract(base, tuned, Path(output), how, plugins, tell=tell, named=current_interruption().finish)
    if show:
        stream.write("\r" + " " * 80 + "\r")
        stream.flush()
    for name in made.left_out[:10]:
        say(f"warning: {name} is missing in one network or has another shape; it is ignored", err=True)
    if len(made.left_out) > 10:
        say(f"warning: and {len(made.left_out) - 10} more", err=True)
    say(
        f"{output}: {made.pairs} pairs of rank {rank} or less, {made.differences} full differences, {made.same} equal "
        f"tensors; the rank loses {100 * made.error:.2f} % of the difference"
    )
