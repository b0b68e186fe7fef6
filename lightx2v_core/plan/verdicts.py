"""Results of recognition by all models, and the error message when no single model recognizes a folder for certain.

Anything that a model does not understand makes its result doubtful. The message then names the candidates, the doubts
about each, and the option that selects it.
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
    """A model that recognizes a folder, with its recognition and components."""

    model: Provided[ModelSpec]
    options: object
    recognition: Recognition
    components: Mapping[str, Component]


@frozen
class Verdicts:
    """The results of all models for a folder; negative results by the name of the model."""

    known: list[Claim] = field(factory=list)
    #: models that recognize it with doubts
    doubtful: list[tuple[Provided[ModelSpec], Recognition]] = field(factory=list)
    #: models whose network exists but is a different one -> reason
    declined: dict[str, str] = field(factory=dict)
    #: models without any candidate for their network -> reason
    strangers: dict[str, str] = field(factory=dict)
    #: models with broken files or wrong configuration -> error
    broken: dict[str, CheckpointError] = field(factory=dict)
    #: errors of configured files that a model has no use for
    misnamed: list[CheckpointError] = field(factory=list)
    #: keys that set the networks of models with several, none of which was found
    pairs: list[str] = field(factory=list)
    #: errors in the files of a model that recognizes the folder
    own: list[CheckpointError] = field(factory=list)

    def failed(self, name: str, exc: CheckpointError | PluginFault, *, own: bool = False) -> None:
        """Record an error. ``own``: the folder is the model's. ``OfAnother`` does not mean that the file is broken."""
        if isinstance(exc, OfAnother):
            self.misnamed.append(exc)
        elif isinstance(exc, CheckpointError) and own:
            self.own.append(exc)
        elif isinstance(exc, CheckpointError):
            self.broken[name] = exc
        self.strangers[name] = str(exc)

    @property
    def rejected(self) -> dict[str, str]:
        """Return the reason against each rejected model."""
        doubts = {model.qualified: "; ".join(answer.doubts) for model, answer in self.doubtful}
        return {**doubts, **self.declined, **self.strangers}


def none_or_many(
    verdicts: Verdicts, folder: Path, specs: Sequence[ModelSpec], other: str = ""
) -> CheckpointError:
    """Build the error for a folder that is not recognized by exactly one model.

    In this order it reports several matches, errors in the files of a model that recognizes it, doubts, errors in
    other files, and the reason of each model. ``other`` is a line on a model that recognizes it but was not requested;
    downloads are not suggested then.
    """
    if verdicts.known:
        choices = " or ".join(f"--model {claim.model.qualified}" for claim in verdicts.known)
        return CheckpointError(f"{folder} is recognized by more than one model; choose {choices}")
    if verdicts.own:
        return verdicts.own[0]
    if verdicts.doubtful:
        lines, ways = [], []
        for model, answer in verdicts.doubtful:
            lines.append(f"  {model.qualified} would run it as {answer.variant}, but:")
            lines += [f"    {doubt}" for doubt in answer.doubts]
            ways.append(f"--model {model.qualified}")
        text = "\n".join(lines)
        return CheckpointError(
            f"no installed model recognizes {folder} for certain:\n{text}\n"
            f"  It seems to be a different model; {' or '.join(ways)} runs it anyway{other}"
        )
    brings = by_name(specs, folder)
    way = f"\n  download the missing files with: {brings}" if brings and not other else other
    links = broken_links(folder)
    if links and not verdicts.declined:
        return CheckpointError(f"{folder}: {links}{f': {brings}' if brings else ''}{other}")
    way += f"\n  {hint}" if (hint := above(folder)) else ""
    if not verdicts.declined and (wrong := [*verdicts.broken.values(), *verdicts.misnamed]):
        text = str(wrong[0])
        if isinstance(wrong[0], Pair) and verdicts.pairs:
            text += f"\n  if they are the two networks of one model, set {' or '.join(verdicts.pairs)}"
        # for damaged files no download is suggested: users replace their own files
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
        way = f"\n  download a model with: lightx2v-core download NAME --to {folder} (names: download --list)"
    return CheckpointError(f"no installed model recognizes {folder} ({listing(folder)}):{why}{way}")
