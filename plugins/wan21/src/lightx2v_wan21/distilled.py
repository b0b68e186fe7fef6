"""Recognition of distilled networks by names: their tensors are those of ordinary ones. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve

from lightx2v_core.api import CheckpointFacts, Recognition, distilled_by, sampling_steps, says_distilled

#: components that denoise
NETWORKS = ("dit", "high_noise", "low_noise")
#: number of steps when a name does not state it
DISTILLED_STEPS = 4
#: publisher of distilled networks; a program has the same name, so it counts in file names only
_MAKER = "lightx2v"
#: placeholder for a name where the configuration marks the network as distilled
STATED = "(stated)"


def distilled_name(facts: CheckpointFacts, component: str) -> str:
    """Return the file or folder name that marks a network as distilled; empty if none does.

    Folders are those on the path of the files, up to the model's own. The configuration outweighs names; ``STATED`` if
    only the configuration marks it.
    """
    if facts.distilled is False:
        return ""
    return _telling(facts, component) or (STATED if facts.distilled else "")


def _telling(facts: CheckpointFacts, component: str) -> str:
    files = {info.file for info in facts.headers[component].tensors.values()}
    for name in sorted(file.name for file in files):
        if says_distilled(name) or _MAKER in name.lower():
            return name
    folders = {facts.name}
    for file in files:
        inside = file.is_relative_to(facts.folder)
        folders |= set(file.relative_to(facts.folder).parts[:-1]) if inside else {file.parent.name}
    return next((name for name in sorted(folders) if says_distilled(name)), "")


def distilled_merged(facts: CheckpointFacts, components: Sequence[str]) -> str:
    """Return the name, recorded by conversions, of the LoRA that distilled the networks; empty unless all have one.

    If all have one, it is that of the first.
    """
    names = [distilled_by(facts.headers[name].metadata) for name in components if name in facts.headers]
    return names[0] if names and all(names) else ""


def half_distilled(facts: CheckpointFacts, components: Sequence[str]) -> tuple[str, ...]:
    """Return a note for the plan if merged weights distill only some of the networks."""
    names = {name: distilled_by(facts.headers[name].metadata) for name in components if name in facts.headers}
    if not any(names.values()) or all(names.values()):
        return ()
    merged = ", ".join(f"{text!r} (in {name})" for name, text in names.items() if text)
    missing = ", ".join(name for name, text in names.items() if not text)
    return (
        f"{merged} is distilled, but nothing marks {missing} as distilled: steps, scheduler and guidance stay those of "
        "the model; set them to override",
    )


def distilled_steps(name: str) -> int:
    """Return the number of steps in a distilled network's name; 4 if the name has none."""
    return sampling_steps(name) or DISTILLED_STEPS


def distilled_note(name: str, ordinary: str) -> str:
    """Format the plan's note on a network that a name marks as distilled.

    ``ordinary`` are the options for an ordinary network.
    """
    if name == STATED:
        return "the network is distilled, as requested: the default is the distill scheduler without guidance"
    steps = distilled_steps(name)
    count = (
        ""
        if steps == DISTILLED_STEPS
        else f" to {steps} steps (the scheduler option denoising_steps changes the default of 4)"
    )
    return (
        f"the name {name!r} marks the network as distilled{count}: the default is the distill scheduler without "
        f"guidance; if it is not distilled, use {ordinary}"
    )


def with_loras(recognition: Recognition, loras: Mapping[str, Sequence[str]]) -> Recognition:
    """Adjust the recognition of a network to LoRA files, given by name for each component.

    If all networks have a distilled one, the defaults become those of a distilled network.
    """
    networks = [name for name in recognition.components if name in NETWORKS]
    telling = {
        network: name for network in networks for name in loras.get(network, ()) if says_distilled(name)
    }
    if not telling:
        return recognition
    names = ", ".join(sorted({repr(name) for name in telling.values()}))
    if missing := [network for network in networks if network not in telling]:
        note = (
            f"LoRA {names} is distilled, but there is none for {', '.join(missing)}: steps, scheduler and guidance "
            "stay those of the model; set them to override"
        )
        return evolve(recognition, notes=(*recognition.notes, note))
    steps = distilled_steps(next(iter(telling.values())))
    count = (
        "" if steps == DISTILLED_STEPS else " (the scheduler option denoising_steps changes the default of 4)"
    )
    note = (
        f"LoRA {names} is distilled to {steps} steps{count}: the default is the distill scheduler without guidance; "
        "an explicit scheduler, steps or guidance takes precedence"
    )
    return evolve(
        recognition,
        architecture={**recognition.architecture, "distilled": steps},
        notes=(*recognition.notes, note),
    )
