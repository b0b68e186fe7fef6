"""Commands of the core that accept subcommands of plugins, loaded only for names that are not the core's."""

from __future__ import annotations

import click


class ExtensibleGroup(click.Group):
    """A command with subcommands of the core and of plugins (``CommandSpec.parent``)."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a subcommand of the core, or find it among the plugins."""
        if own := super().get_command(ctx, name):
            return own
        from lightx2v_core.cli.extra import plugin_command

        return plugin_command(name, parent=self.name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a subcommand; fail with advice on which distribution provides a missing one."""
        if self.get_command(ctx, args[0]) is None:
            from lightx2v_core.cli.extra import missing_command

            ctx.fail(missing_command(args[0], own=self.commands, parent=self.name))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the subcommands of the core, then those of plugins."""
        from lightx2v_core.cli.listed import listed_commands

        super().format_commands(ctx, formatter)
        if brought := listed_commands(parent=self.name):
            with formatter.section("Plugin commands"):
                formatter.write_dl(list(brought.items()))
