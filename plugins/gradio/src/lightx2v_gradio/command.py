"""``lightx2v-core ui``: plan, show the plan, open the page."""

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
    "--model-path", "--model_path", metavar="DIR", help="Folder of the model; absent: the mini model."
)
@click.option("--task", metavar="NAME", help="t2v, i2v, flf2v, vace or animate; what the page opens with.")
@click.option(
    "--model", "--model_cls", metavar="NAME", help="Model family; absent: recognized by its tensors."
)
@click.option(
    "--model_size", "--model-size", metavar="SIZE", help="What the model has to be, such as 14b or 1.3b."
)
@click.option(
    "--config", "--config_json", metavar="FILE", help="Configuration below what is chosen on the page."
)
@click.option(
    "--lora", "loras", metavar="PATH", multiple=True, help="LoRA file, or a folder of them, to offer."
)
@click.option(
    "--output", metavar="DIR", default="outputs", show_default=True, help="Folder for what is made."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; absent: the first free one from 7860 up.")
@click.option("--auth", metavar="USER:PASSWORD", help="Ask for these.", envvar="LIGHTX2V_UI_AUTH")
@click.option("--token", is_flag=True, help="Ask for a token, which the printed address has.")
@click.option("--upload-limit", type=click.IntRange(1, 1_000_000), default=512, show_default=True, metavar="MB",
              help="Most that can be sent at once.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def command(**asked: Any) -> None:
    """Open the web page: videos without a command line.

    It can be reached from this machine only, unless --host names another address; then --auth or --token is needed.
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
    from lightx2v_gradio.page import Page
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
        page = Page(options, plugins, queue, output)
        app = server.application(page.layout.blocks, rules, page_style())
        where = server.address(listening, asked["host"])
        click.echo(f"open {where}{f'?token={rules.token}' if rules.token else ''}  (Ctrl-C ends it)")
        sys.stdout.flush()
        server.serve(app, listening)
    finally:
        queue.close()
        runner.close()
        listening.close()


def check_access(loopback: bool, auth: str | None, token: bool) -> None:
    """``RequestError`` when others could come in without a word, or the word is no user and password."""
    if auth is not None and not all(auth.partition(":")[::2]):
        raise RequestError("--auth takes USER:PASSWORD")
    if not loopback and auth is None and not token:
        raise RequestError(
            "with this --host others can reach the page, use this machine and read its model folders; add --auth "
            "USER:PASSWORD or --token"
        )


def base_config(file: str | None, model: str | None) -> dict[str, Any]:
    """What lies below the choices of the page: a configuration file as data, and the family that was asked for."""
    said: Config = {} if file is None else read_config(file)
    return merge_configs(said, {} if model is None else {"model": model})


def check_size(plan: Plan, size: str | None) -> None:
    """``RequestError`` when the model is not of the size that a script of the guides names."""
    if size and size.lower().strip() not in plan.variant.lower().replace("a14b", "a14b-14b").split("-"):
        raise RequestError(f"--model_size {size} is asked for, and the folder holds {plan.variant}")


def default_folder(plugins: PluginSet) -> str:
    """The checkpoint that the page opens with when none is named: the first by name of those that come with plugins and
    make a video of a prompt. ``RequestError`` says how to get one."""
    reasons = []
    for name in sorted(provided.spec.name for provided in plugins.provided("checkpoint")):
        try:
            if not find_options(ModelSource(folder=name), plugins).required:
                return name
        except LightX2VError as exc:
            reasons.append(f"  {name}: {exc}")
    lines = missing("checkpoint", [provided.spec.name for provided in plugins.provided("checkpoint")])
    how = "; ".join(lines) or "a plugin that brings one, such as lightx2v-mini, is not installed either"
    raise RequestError("\n".join([f"no model folder is given; use --model-path DIR, or: {how}", *reasons]))


def cache_folder() -> Path:
    """Where fits of previews are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lightx2v" / "previews"
