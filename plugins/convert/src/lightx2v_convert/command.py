"""``lightx2v-core convert``: quantize, split, rename, cast, merge. Also accepts the options of LightX2V's converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lightx2v_core.api import (
    RequestError,
    common_options,
    current_interruption,
    format_bytes,
    parse_lora_option,
    plugins_from,
    progress_listener,
    repeat_options,
    say,
    say_json,
)
from lightx2v_core.weights import LoraConfig

#: model type of LightX2V's converter -> component
MODEL_TYPES = {
    "wan_dit": "dit",
    "wan_animate_dit": "dit",
    "wan_t5": "text_encoder",
    "wan_clip": "image_encoder",
}
#: unsupported options of LightX2V's converter -> replacement
_OTHER = {
    "key_idx": "select layers by name with --only and --keep",
    "target_keys": "use --only with patterns such as '*.ffn.*'",
    "ignore_quant_keys": "use --keep with patterns such as 'blocks.0.*'",
    "ignore_keys": "use --drop with patterns such as 'textual.*'",
}


#: options with several values in LightX2V's converter
_SEVERAL = ("--lora_path", "--lora_strength", "--lora_alpha")


class _Command(click.Command):
    """A command that also accepts ``--lora_path a b --lora_strength 1.0 0.8``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat options that are given several values at once."""
        # a single path is SOURCE, unless SOURCE is already given
        sourced = bool(args) and (
            any(word.split("=")[0] in ("-s", "--source") for word in args) or not args[0].startswith("-")
        )
        return super().parse_args(ctx, repeat_options(args, _SEVERAL if sourced else _SEVERAL[1:]))


@click.command("convert", cls=_Command)
@click.argument("source", required=False)
@click.option("-s", "--source", "source_option", metavar="PATH", help="Same as SOURCE.")
@click.option("-o", "--output", metavar="PATH", required=True, help="A .safetensors file, or a new folder.")
@click.option(
    "--component",
    metavar="NAME",
    help="Network to convert, such as dit; default: all networks of the folder.",
)
@click.option(
    "--quantize",
    "--linear_type",
    "--linear-type",
    metavar="FORMAT",
    help="int8, fp8, another format such as fp8-block128, or none for plain weights; default: as in the source.",
)
@click.option(
    "--dtype",
    "--non_linear_dtype",
    metavar="DTYPE",
    help="Dtype of all other tensors: float32, bfloat16, float16 or keep.",
)
@click.option(
    "--layout",
    type=click.Choice(["official", "comfyui", "diffusers", "transformers"]),
    help="Tensor names of the output.",
)
@click.option(
    "--split",
    type=click.Choice(["single", "blocks", "shards"]),
    help="One file, one file per block, or shards.",
)
@click.option(
    "--shard-size",
    metavar="SIZE",
    default="5GB",
    show_default=True,
    help="Largest size of a shard, such as 2GB.",
)
@click.option(
    "-c", "--chunk-size", "--chunk_size", type=click.IntRange(0), help="Tensors per shard; 0: one file."
)
@click.option(
    "--only", metavar="PATTERN", multiple=True, help="Quantize only these layers, such as '*.ffn.*'."
)
@click.option(
    "--keep", metavar="PATTERN", multiple=True, help="Leave these layers unquantized, such as 'blocks.0.*'."
)
@click.option("--drop", metavar="PATTERN", multiple=True, help="Omit these tensors.")
@click.option(
    "--lora",
    "--lora_path",
    "loras",
    metavar="[high:|low:|both:]FILE[:STRENGTH]",
    multiple=True,
    help="Merge a LoRA file first; as in run.",
)
@click.option(
    "--lora_strength",
    "--lora-strength",
    type=float,
    multiple=True,
    help="One value for all LoRA files, or one for each.",
)
@click.option("--strict-lora", is_flag=True, help="Reject LoRA files with tensors that have no effect.")
@click.option(
    "--lora_alpha", "--lora-alpha", type=float, multiple=True, help="Alpha for LoRA files without one."
)
@click.option("--full", "--full_quantized", is_flag=True, help="Store every tensor in fp8, without scales.")
@click.option("--report", is_flag=True, help="Print the error of every quantized layer.")
@click.option(
    "--device", default="cpu", show_default=True, help="Device for quantization: cpu, cuda or cuda:N."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option(
    "--copy-others", "--copy_no_weight_files", is_flag=True, help="Also copy the small files of the source."
)
@click.option("-b", "--save_by_block", is_flag=True, hidden=True)
@click.option("--single_file", "--single-file", is_flag=True, hidden=True)
@click.option("-t", "--model_type", type=click.Choice(sorted(MODEL_TYPES)), hidden=True)
@click.option("-d", "--direction", type=click.Choice(["none", "forward", "backward"]), hidden=True)
@click.option("-o_n", "--output_name", hidden=True)
@click.option("-o_e", "--output_ext", type=click.Choice([".safetensors", ".pth"]), hidden=True)
@click.option("--quantized", is_flag=True, hidden=True)
@click.option("--bits", type=int, hidden=True)
@click.option("--comfyui_mode", is_flag=True, hidden=True)
@click.option("--lora_key_convert", type=click.Choice(["auto", "same", "convert"]), hidden=True)
@click.option("--parallel/--no-parallel", default=None, hidden=True)
@click.option("--key-idx", hidden=True)
@click.option("--target-keys", hidden=True)
@click.option("--ignore-keys", hidden=True)
@click.option("--ignore-quant-keys", hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print events as lines of JSON.")
@click.option("--quiet", is_flag=True, help="Print only warnings and errors.")
@common_options
def command(**parameters: Any) -> None:
    """Convert the weights of SOURCE, a file or a folder: quantize, split, rename, cast, merge LoRA files.

    A model folder is converted to a folder of the same model: its networks are converted, its VAE and tokenizer copied.
    With --component, or an --output that ends in .safetensors, only one network is converted.

    One tensor is in memory at a time. Repeat the command to resume an interrupted conversion.
    """
    plugins = plugins_from(parameters)
    as_json, quiet = parameters.pop("as_json"), parameters.pop("quiet")
    source = parameters["source"] or parameters["source_option"]
    if source is None:
        raise click.UsageError("Missing argument 'SOURCE'.")
    from lightx2v_convert.conversion import convert

    options, output = _options(parameters)
    copy: tuple[str, ...] = ("config.json",)
    if parameters["copy_others"]:
        folder = Path(source).expanduser()
        folder = folder if folder.is_dir() else folder.parent
        weights = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".gguf", ".index.json")
        copy = tuple(sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.endswith(weights)))
    interruption = current_interruption()
    interruption.kept = "repeat the command to resume"
    with progress_listener(as_json=as_json, quiet=quiet) as emit:
        done = convert(
            source,
            output,
            options,
            plugins=plugins,
            overwrite=parameters["overwrite"],
            copy=copy,
            emit=interruption.watched(emit),
            named=interruption.finish,
        )
    if as_json:
        data = {"event": "converted", "files": [str(path) for path in done.files], "bytes": done.nbytes}
        data |= {"copied": list(done.copied), "lacking": list(done.lacking)}
        say_json({**data, "layers": done.layers, "format": done.format, "report": done.report})
        return
    if not quiet:
        count = f"{len(done.files)} file{'' if len(done.files) == 1 else 's'}"
        what = f", {done.layers} layers in {done.format}" if done.layers and done.format else ""
        say(f"wrote {output} ({count}, {format_bytes(done.nbytes)}{what})")
        if done.copied:
            say(f"copied {', '.join(done.copied)}")
        if done.lacking:
            say(f"missing in {source} and in the output: {', '.join(done.lacking)}")
    if parameters["report"]:
        for name, error in done.report.items():
            say(f"{name}  relative RMSE {error['relative_rmse']:.5f}  largest {error['max_error']:.3g}")


def _options(given: dict[str, Any]) -> tuple[Any, Path]:
    """Read the options and the output of a conversion from both sets of options."""
    from lightx2v_convert.model_folder import UNUSED
    from lightx2v_convert.options import ConvertOptions
    from lightx2v_convert.workspace import is_file

    for name, advice in _OTHER.items():
        if given[name] is not None:
            raise RequestError(f"--{name.replace('_', '-')} is not supported: {advice}")
    if given["output_ext"] == ".pth":
        raise RequestError("only safetensors files are written; omit --output_ext")
    if given["bits"] not in (None, 8):
        raise RequestError(f"--bits {given['bits']}: only 8 bits are supported")
    if given["quantized"] and given["quantize"] is None:
        raise RequestError("--quantized needs --linear_type int8 or fp8")
    component = MODEL_TYPES.get(given["model_type"])
    drop = UNUSED.get(component, ()) if component is not None else ()
    layout: Any = given["layout"] or (
        "comfyui" if given["comfyui_mode"] else _LAYOUTS.get(given["direction"], "official")
    )
    output, split = Path(given["output"]), given["split"]
    tensors = given["chunk_size"]
    if split is None:
        split = "blocks" if given["save_by_block"] else "shards" if tensors else "single"
    if given["single_file"] and split != "single":
        raise RequestError("--single_file contradicts a split into several files")
    if given["single_file"] and not is_file(output):
        output = output / f"{given['output_name'] or 'converted'}.safetensors"
    strengths, alphas = given["lora_strength"], given["lora_alpha"]
    loras = []
    for number, text in enumerate(given["loras"]):
        entry = {
            "strength": _of(strengths, number, given["loras"], "--lora_strength", 1.0),
            "alpha": _of(alphas, number, given["loras"], "--lora_alpha", None),
            **parse_lora_option(text),
        }
        loras.append(_lora(entry, text))
    options = ConvertOptions(
        quantize=given["quantize"],
        dtype=_dtype(given["dtype"]),
        layout=layout,
        split=split,
        shard_bytes=_size(given["shard_size"]),
        shard_tensors=tensors or None,
        keep=given["keep"],
        only=given["only"],
        drop=(*given["drop"], *drop),
        full=given["full"],
        loras=tuple(loras),
        strict_lora=given["strict_lora"],
        component=given["component"] or component,
        device=given["device"],
        report=given["report"],
    )
    return options, output


def _lora(entry: dict[str, Any], text: str) -> LoraConfig:
    try:
        return LoraConfig(**entry)
    except ValueError as exc:
        raise RequestError(f"--lora {text}: {exc}") from None


_LAYOUTS = {"forward": "diffusers", "backward": "official"}


def _dtype(text: str | None) -> str | None:
    name = None if text in (None, "keep") else str(text).removeprefix("torch.")
    if name not in (None, "float32", "bfloat16", "float16"):
        raise RequestError(f"--dtype {text!r} must be float32, bfloat16, float16 or keep")
    return name


def _size(text: str) -> int:
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1, "": 1}
    number = text.rstrip("KMGBkmgb ")
    unit = text[len(number) :].strip().upper()
    if unit not in units or not _is_number(number) or not float(number) > 0:
        raise RequestError(f"--shard-size {text!r} is not a size such as 5GB or 800MB")
    return max(int(float(number) * units[unit]), 1)


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _of(values: tuple[float, ...], number: int, files: tuple[str, ...], option: str, default: Any) -> Any:
    if len(values) not in (0, 1, len(files)):
        raise RequestError(
            f"{option} is given {len(values)} times for {len(files)} LoRA files; give it once, or once per file"
        )
    return (values[0] if len(values) == 1 else values[number]) if values else default
