"""The command line. The module of a command is imported on use, so ``--help`` does not import torch."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from lightx2v_core.cli.interruption import Interruption
from lightx2v_core.cli.terminal import guarded, say
from lightx2v_core.errors import LightX2VError
from lightx2v_core.spec.version import __version__

#: command -> (module, summary)
COMMANDS = {
    "run": ("lightx2v_core.cli.run", "Generate a video."),
    "plan": ("lightx2v_core.cli.plan", "Show the plan of a run: choices, reasons, memory."),
    "inspect": (
        "lightx2v_core.cli.inspect",
        "Show the contents of a model folder or file, and what can be run from it.",
    ),
    "plugins": ("lightx2v_core.cli.plugins", "List the installed plugins, or show and check them."),
    "config": (
        "lightx2v_core.cli.config",
        "Check a configuration, or show it with the origin of every value.",
    ),
    "doctor": (
        "lightx2v_core.cli.doctor",
        "Show the device, versions, plugins and known problems.",
    ),
}


class Commands(click.Group):
    """The group of all commands. Plugins are loaded only for names that are not commands of the core."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands of the core."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command of the core, or find it among the plugins."""
        if name in COMMANDS:
            command: click.Command = import_module(COMMANDS[name][0]).command
            return command
        from lightx2v_core.cli.extra import plugin_command

        return plugin_command(name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command; fail with advice on which distribution provides a missing one."""
        if self.get_command(ctx, args[0]) is None:
            from lightx2v_core.cli.extra import missing_command

            ctx.fail(missing_command(args[0], own=COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of the core, then those of plugins."""
        from lightx2v_core.cli.listed import listed_commands

        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])
        if brought := listed_commands():
            with formatter.section("Plugin commands"):
                formatter.write_dl(list(brought.items()))
        formatter.write_paragraph()
        formatter.write_text("Plugins may add commands; see `lightx2v-core plugins`.")


@click.command(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="lightx2v-core")
def cli() -> None:
    """Generate videos with Wan models and their plugins."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit status: 0 success, 1 failed run, 2 wrong request, 130 interrupted.
    """
    interruption = Interruption()
    try:
        with guarded(to_the_end=argv is None), interruption.installed(to_the_end=argv is None):
            if (
                argv is None
            ):  # imports allocate many objects and no garbage: rare collections speed up the start
                gc.set_threshold(100_000)
            status = _status(list(sys.argv[1:] if argv is None else argv), interruption)
            if argv is None:
                interruption.end(status)
    except KeyboardInterrupt:  # before a command was found, or while its failure was reported
        status = interruption.told()
    if argv is None:  # the process ends here; skip the search for cycles among all imported modules
        interruption.end(status)
        from lightx2v_core.discovery.ending import end_in_time

        gc.freeze()
        end_in_time(status)
    raise SystemExit(status)  # a plugin may have replaced sys.exit


def _status(args: list[str], interruption: Interruption) -> int:
    """Run a command, report its failure and return its exit status."""
    debug = "--debug" in args
    try:
        status = cli.main(args=args, prog_name="lightx2v-core", standalone_mode=False, obj=interruption)
        return status or 0
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except (KeyboardInterrupt, click.Abort):
        if debug:
            traceback.print_exc()
        return interruption.told()
    except BaseException as exc:  # a plugin can raise anything
        if interruption.pending and not debug:  # the failure is caused by the interrupt
            return interruption.told()
        if isinstance(exc, click.ClickException):
            _refuse(exc)
            return exc.exit_code
        if isinstance(exc, BrokenPipeError):  # the reader of our output has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        if isinstance(exc, SystemExit):
            return _status_of(exc)
        if debug:
            raise
        from lightx2v_core.discovery.isolation import in_words, spoken

        if isinstance(exc, LightX2VError):
            say(f"error: {spoken(exc)}", err=True)
            return exc.exit_status
        say(f"error: unexpected {in_words(exc)}\n  use --debug for a traceback", err=True)
        return 1


def _status_of(exc: SystemExit) -> int:
    """Convert ``SystemExit`` to an exit status as Python does: keep an integer; print any other code and return 1."""
    if exc.code is None or isinstance(exc.code, int):
        return exc.code or 0
    from lightx2v_core.discovery.isolation import one_line

    say(one_line(str(exc.code)), err=True)
    return 1


def _refuse(exc: click.ClickException) -> None:
    """Report a wrong command line as click does, with control characters escaped."""
    ctx = exc.ctx if isinstance(exc, click.UsageError) else None
    if ctx is not None:
        say(ctx.get_usage(), err=True)
        say(f"Try '{ctx.command_path} {max(ctx.help_option_names, key=len)}' for help.", err=True)
        click.echo(err=True)
    # click indents choices with tabs
    say("Error: " + exc.format_message().replace("\n\t", "\n  "), err=True)
