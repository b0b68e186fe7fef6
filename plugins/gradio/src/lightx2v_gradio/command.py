"""The subcommand ``lightx2v-core ui``: plan, print the plan, serve the page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from lightx2v_core.api import (
    LightX2VError,
    Plan,
    PluginSet,
    RequestError,
    load_plugins,
    missing,
    plan_text,
    read_config,
)
from lightx2v_gradio.options import Config, FolderOptions, ModelSource, find_options, merge_configs


@click.command("ui")
@click.option(
    "--model-path", "--model_path", metavar="DIR", help="Model folder; default: the mini checkpoint."
)
@click.option("--task", metavar="NAME", help="Task to open with: t2v, i2v, flf2v, vace or animate.")
@click.option(
    "--model", "--model_cls", metavar="NAME", help="Model family; default: recognized by its tensors."
)
@click.option(
    "--model_size", "--model-size", metavar="SIZE", help="Required size of the model, such as 14b or 1.3b."
)
@click.option(
    "--config", "--config_json", metavar="FILE", help="Configuration below the choices of the page."
)
@click.option("--lora", "loras", metavar="PATH", multiple=True, help="LoRA file or folder to offer.")
@click.option(
    "--output", metavar="DIR", default="outputs", show_default=True, help="Folder for results and uploads."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; default: the first free one from 7860 up.")
@click.option("--auth", metavar="USER:PASSWORD", help="Require user and password.", envvar="LIGHTX2V_UI_AUTH")
@click.option("--token", is_flag=True, help="Require the token in the printed address.")
@click.option("--upload-limit", type=click.IntRange(1, 1_000_000), default=512, show_default=True, metavar="MB",
              help="Largest upload.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the plan and exit.")
@click.option("--debug", is_flag=True, help="Print the traceback of an error.")
def command(**asked: Any) -> None:
    """Serve the web page.

    It accepts connections from this machine only, unless --host names another address; then it requires --auth or
    --token.
    """
    from lightx2v_gradio.server import is_loopback

    asked.pop("debug")
    loopback = is_loopback(asked["host"])
    check_access(loopback, asked["auth"], asked["token"])
    plugins = load_plugins()
    base = base_config(asked["config"], asked["model"])
    source = ModelSource(
        folder=asked["model_path"] or base.get("model_path") or default_folder(plugins),
        task=asked["task"] or base.get("task"),
        base={name: value for name, value in base.items() if name not in ("model_path", "task", "loras")},
        loras=(*asked["loras"], *(lora["path"] for lora in base.get("loras", ()))),
    )
    options = find_options(source, plugins)
    check_size(options.plan, asked["model_size"])
    click.echo(plan_text(options.plan))
    if not asked["dry_run"]:
        run(options, plugins, asked, loopback=loopback)


def run(options: FolderOptions, plugins: PluginSet, asked: dict[str, Any], *, loopback: bool) -> None:
    """Serve the page until it is interrupted."""
    from lightx2v_gradio import server
    from lightx2v_gradio.jobs import Queue
    from lightx2v_gradio.results import output_folder
    from lightx2v_gradio.runner import Runner

    output = output_folder(asked["output"])
    listening = server.listen(asked["host"], asked["port"])
    server.prepare(output)
    from lightx2v_gradio.gateway import AccessRules, new_token
    from lightx2v_gradio.page import build_pages
    from lightx2v_gradio.style import page_style

    rules = AccessRules(
        output=output,
        loopback=loopback,
        auth=asked["auth"],
        token=new_token() if asked["token"] else None,
        upload_limit=asked["upload_limit"] * 10**6,
    )
    runner = Runner(plugins, output, cache_folder())
    queue = Queue(runner)
    try:
        pages = build_pages(options, plugins, queue, output)
        blocks = {language: page.layout.blocks for language, page in pages.items()}
        app = server.application(blocks, rules, page_style())
        where = server.address(listening, asked["host"])
        click.echo(f"open {where}{f'?token={rules.token}' if rules.token else ''}  (Ctrl-C ends it)")
        sys.stdout.flush()
        server.serve(app, listening)
    finally:
        queue.close()
        runner.close()
        listening.close()


def check_access(loopback: bool, auth: str | None, token: bool) -> None:
    """Check the access options. ``RequestError`` for a page open to others without credentials, or malformed ones."""
    if auth is not None and not all(auth.partition(":")[::2]):
        raise RequestError("--auth takes USER:PASSWORD")
    if not loopback and auth is None and not token:
        raise RequestError(
            "with this --host others can reach the page, use this machine and read its model folders; add --auth "
            "USER:PASSWORD or --token"
        )


def base_config(file: str | None, model: str | None) -> dict[str, Any]:
    """Return the configuration below the choices of the page: that of a file, with the requested model family."""
    config: Config = {} if file is None else read_config(file)
    return merge_configs(config, {} if model is None else {"model": model})


def check_size(plan: Plan, size: str | None) -> None:
    """Check the size of the model against ``--model_size``. ``RequestError`` for another one."""
    if size and size.lower().strip() not in plan.variant.lower().replace("a14b", "a14b-14b").split("-"):
        raise RequestError(f"--model_size {size} does not match the folder, which has {plan.variant}")


def default_folder(plugins: PluginSet) -> str:
    """Return the checkpoint to open without ``--model-path``: by name the first one of a plugin that needs only a
    prompt. ``RequestError`` without one explains how to install one."""
    reasons = []
    for name in sorted(provided.spec.name for provided in plugins.provided("checkpoint")):
        try:
            if not find_options(ModelSource(folder=name), plugins).required:
                return name
        except LightX2VError as exc:
            reasons.append(f"  {name}: {exc}")
    lines = missing("checkpoint", [provided.spec.name for provided in plugins.provided("checkpoint")])
    how = "; ".join(lines) or "install a plugin with a checkpoint, such as lightx2v-mini"
    raise RequestError("\n".join([f"no model folder; use --model-path DIR, or: {how}", *reasons]))


def cache_folder() -> Path:
    """Return the folder for the fits of previews."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lightx2v" / "previews"
