"""The command ``lightx2v-core run``: plan, load, generate, write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lightx2v_core.checkpoint.staging import claim_outputs
from lightx2v_core.cli.batch import check_options, read_jobs, results, run_batch
from lightx2v_core.cli.common import common_options, plugins_from
from lightx2v_core.cli.foreign import ForeignOptions
from lightx2v_core.cli.interruption import INTERRUPTED, current_interruption
from lightx2v_core.cli.options import config_from, run_options
from lightx2v_core.cli.progress import progress_listener
from lightx2v_core.cli.show_plan import plan_text
from lightx2v_core.discovery.isolation import unended
from lightx2v_core.errors import LightX2VError
from lightx2v_core.events import Failed, PlanReady
from lightx2v_core.plan.output import check_dump
from lightx2v_core.plan.resolve import check_ready, resolve


@click.command("run", cls=ForeignOptions)
@run_options
@click.option("--dump-tensors", metavar="FILE", help="Also save latents and video as safetensors (float32).")
@click.option(
    "--prompt-file",
    metavar="FILE",
    help="File with one job per line: a prompt or a JSON object. --output is then a folder.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and exit.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print events to stdout as JSON, one per line, and nothing else."
)
@click.option("--quiet", is_flag=True, help="Print warnings and errors only.")
@common_options
def command(**parameters: Any) -> None:
    """Generate a video.

    CONFIG is a configuration file (JSON with comments). Options take precedence over it.
    """
    interruption = current_interruption()
    as_json, quiet = parameters.pop("as_json"), parameters.pop("quiet")
    dry_run, dump = parameters.pop("dry_run"), parameters.pop("dump_tensors")
    prompt_file = parameters.pop("prompt_file")
    with progress_listener(as_json=as_json, quiet=quiet) as tell:
        emit = interruption.watched(tell)
        try:
            plugins = plugins_from(parameters)
            loaded = config_from(parameters)
            if prompt_file is not None:
                check_options(loaded, dump)
                jobs = read_jobs(Path(prompt_file), loaded.config.output.path)
                interruption.kept = "finished jobs are kept; the same command runs the others"
                run_batch(jobs, loaded, plugins, emit=emit, dry_run=dry_run)
                return
            resolved = resolve(loaded, plugins, with_output=True)
            output = resolved.plan.output
            assert output is not None
            if dump is not None:
                check_dump(Path(dump), overwrite=output.overwrite)
            if not dry_run:
                check_ready(resolved)
                from lightx2v_core.runtime.proof.proven import proven

                resolved = proven(resolved)
            if dry_run and not as_json:  # the plan includes all that a run prints before it starts
                click.echo(plan_text(resolved.plan), color=True)
                return
            emit(PlanReady(plan=resolved.plan.to_json()))
            if dry_run:
                return
            from lightx2v_core.runtime.pipeline import Pipeline

            with (
                unended(),
                claim_outputs(*results(output, dump)),
                Pipeline.load(resolved, on_event=emit) as pipeline,
            ):
                pipeline.generate_to(
                    resolved,
                    output,
                    dump=None if dump is None else Path(dump),
                    on_event=emit,
                    named=interruption.finish,
                )
        except LightX2VError as exc:
            tell(Failed(message=str(exc), exit_status=exc.exit_status))
            raise
        except KeyboardInterrupt:
            tell(Failed(message="interrupted", exit_status=INTERRUPTED))
            raise
        except Exception as exc:
            tell(Failed(message=f"unexpected {type(exc).__name__}: {exc}", exit_status=1))
            raise
