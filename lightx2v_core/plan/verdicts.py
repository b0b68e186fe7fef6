"""What the models say of a folder, and what a user is told when not one of them knows it for certain.

Whatever was not understood makes an answer uncertain, and an uncertain answer asks: it names the candidates, what
speaks against each, and the option that decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from lightx2v_core.checkpoint.candidates import Pair
from lightx2v_core.checkpoint.components import Component, OfAnother
from lightx2v_core.checkpoint.folders import listing
from lightx2v_core.checkpoint.stand_ins import broken_links
from lightx2v_core.discovery.plugins import Provided
from lightx2v_core.errors import CheckpointError, PluginFault
from lightx2v_core.plan.ways import above, by_name
from lightx2v_core.spec.recognition import Recognition
from lightx2v_core.spec.specs import ModelSpec


@frozen(kw_only=True)
class Claim:
    """A model that takes a folder for its own, and what it knows of it."""

    model: Provided[ModelSpec]
    options: object
    recognition: Recognition
    components: Mapping[str, Component]


@frozen
class Verdicts:
    """What the models said of a folder, by the name of the model where it is no."""

    known: list[Claim] = field(factory=list)
    #: those that take it for theirs and say what speaks against it
    doubtful: list[tuple[Provided[ModelSpec], Recognition]] = field(factory=list)
    #: their network is there, and they know it to be another one
    declined: dict[str, str] = field(factory=dict)
    #: nothing that is there could be their network
    strangers: dict[str, str] = field(factory=dict)
    #: what is wrong with files of theirs, or with what the configuration says of them
    broken: dict[str, CheckpointError] = field(factory=dict)
    #: what the configuration names is nothing that they have a use for
    misnamed: list[CheckpointError] = field(factory=list)
    #: what names the networks of those that have several and did not find them, in words
    pairs: list[str] = field(factory=list)
    #: it is theirs, but for what is wrong with it
    own: list[CheckpointError] = field(factory=list)

    def failed(self, name: str, exc: CheckpointError | PluginFault, *, own: bool = False) -> None:
        """Keep what went wrong. That a file is not what a model would need it for says nothing about the file."""
        if isinstance(exc, OfAnother):
            self.misnamed.append(exc)
        elif isinstance(exc, CheckpointError) and own:
            self.own.append(exc)
        elif isinstance(exc, CheckpointError):
            self.broken[name] = exc
        self.strangers[name] = str(exc)

    @property
    def rejected(self) -> dict[str, str]:
        """Every model that it is not, and why."""
        doubts = {model.qualified: "; ".join(answer.doubts) for model, answer in self.doubtful}
        return {**doubts, **self.declined, **self.strangers}


def none_or_many(
    verdicts: Verdicts, folder: Path, specs: Sequence[ModelSpec], other: str = ""
) -> CheckpointError:
    """What to say when there is not one model that knows a folder for certain: what is wrong with files of a model
    that it is, what makes it uncertain, what is wrong with files that were meant, and why else it is none. ``other`` is
    a line on a model that was not asked for and knows it: nothing is missing then."""
    if verdicts.known:
        choices = " or ".join(f"--model {claim.model.qualified}" for claim in verdicts.known)
        return CheckpointError(f"{folder} is recognized by more than one model; say which: {choices}")
    if verdicts.own:
        return verdicts.own[0]
    if verdicts.doubtful:
        lines, ways = [], []
        for model, answer in verdicts.doubtful:
            lines.append(f"  {model.qualified} would take it for {answer.variant}, but:")
            lines += [f"    {doubt}" for doubt in answer.doubts]
            ways.append(f"--model {model.qualified}")
        text = "\n".join(lines)
        return CheckpointError(
            f"{folder} holds a network that no installed model knows for certain:\n{text}\n"
            f"  It seems to be of another model. {' or '.join(ways)} runs what is known of it all the same{other}"
        )
    brings = by_name(specs, folder)
    way = f"\n  what is missing comes with: {brings}" if brings and not other else other
    links = broken_links(folder)
    if links and not verdicts.declined:
        return CheckpointError(f"{folder}: {links}{f': {brings}' if brings else ''}{other}")
    way += f"\n  {hint}" if (hint := above(folder)) else ""
    if not verdicts.declined and (wrong := [*verdicts.broken.values(), *verdicts.misnamed]):
        text = str(wrong[0])
        if isinstance(wrong[0], Pair) and verdicts.pairs:
            text += f"\n  if they are the two networks of one model, give {' or '.join(verdicts.pairs)}"
        # a file that is damaged is for whoever keeps it to replace
        return CheckpointError(text + (way if "missing" in text else other))
    damaged = {name: str(exc) for name, exc in verdicts.broken.items()}
    reasons = {**verdicts.declined, **damaged} if verdicts.declined else verdicts.strangers
    same: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        same.setdefault(reason, []).append(name)
    why = "".join(f"\n  {', '.join(names)}: {reason}" for reason, names in same.items())
    if verdicts.declined:
        way = f"{other}\n  {hint}" if hint else other
    elif not way:
        way = f"\n  a model's files come with: lightx2v-core download NAME --to {folder} (--list shows the names)"
    return CheckpointError(f"no installed model knows {folder} ({listing(folder)}):{why}{way}")
