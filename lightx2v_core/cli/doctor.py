"""The command ``lightx2v-core doctor``: device, versions, plugins and known problems."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from lightx2v_core.cli.checkup import Checkup, checkup
from lightx2v_core.cli.common import common_options, plugins_from
from lightx2v_core.cli.show_plan import format_bytes
from lightx2v_core.cli.terminal import say, say_json
from lightx2v_core.runtime.proof.claim import Verdict
from lightx2v_core.runtime.proof.trial import trials


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on one line.")
@common_options
def command(as_json: bool, **parameters: Any) -> None:
    """Show the device, versions, plugins and known problems.

    Usable kernels are tested in a separate process on a small product with a known result. The exit status is 1 if
    there is a problem.
    """
    report = checkup(plugins_from(parameters), trials=trials)
    if as_json:
        say_json(report.to_json())
    else:
        for line in lines(report):
            say(line)
    sys.exit(1 if report.problems else 0)


def lines(report: Checkup) -> Iterator[str]:
    """Format the report as text."""
    yield f"lightx2v-core {report.core}, Python {report.python}, {report.system}"
    memory = format_bytes(report.memory) if report.memory else "unknown"
    yield f"host      {report.processors} processors, memory {memory}"
    capability = ".".join(map(str, report.device.capability))
    properties = (
        f", compute capability {capability}, {format_bytes(report.device.memory)}"
        if report.device.kind != "cpu"
        else ""
    )
    yield f"device    {report.device.name}{properties} ({report.device_why})"
    yield f"packages  {', '.join(f'{name} {version}' for name, version in report.packages.items())}"
    yield "plugins"
    yield from (f"  {name}: {state}" for name, state in report.plugins.items())
    for kind, items in report.implementations.items():
        if items:
            yield f"{kind}"
        for name, reasons in items.items():
            verdict = report.proofs.get(kind, {}).get(name)
            yield f"  {name}: {'; '.join(reasons) if reasons else usable_text(verdict)}"
    yield from (f"problem: {problem}" for problem in report.problems)
    if not report.problems:
        yield "no known problems"


def usable_text(verdict: Verdict | None, usable: str = "usable") -> str:
    """Describe the usability of an implementation without other obstacles, by its proof if it has one."""
    if verdict is None:
        return usable
    if verdict.state == "wrong":
        return f"not used, wrong on this machine: {verdict.text}"
    if verdict.state == "open":
        return f"{usable}, not verified: {verdict.text}"
    return f"{usable}, verified{verdict.text and f' ({verdict.text})'}"
