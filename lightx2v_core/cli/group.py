"""Commands of the core that take subcommands of plugins; plugins are loaded for a name that is not the core's."""

from __future__ import annotations

import click


class ExtensibleGroup(click.Group):
    """A command of the core with subcommands of its own and of plugins (``CommandSpec.parent``)."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if own := super().get_command(ctx, name):
            return own
        from lightx2v_core.cli.extra import plugin_command

        return plugin_command(name, parent=self.name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            from lightx2v_core.cli.extra import missing_command

            ctx.fail(missing_command(args[0], own=self.commands, parent=self.name))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from lightx2v_core.cli.listed import listed_commands

        super().format_commands(ctx, formatter)
        if brought := listed_commands(parent=self.name):
            with formatter.section("Commands of plugins"):
                formatter.write_dl(list(brought.items()))
