"""How a distilled network is known: by names, for its tensors are those of the ordinary one. Nothing imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve

from lightx2v_core.api import CheckpointFacts, Recognition, distilled_by, sampling_steps, says_distilled

#: components that denoise
NETWORKS = ("dit", "high_noise", "low_noise")
#: steps that a name does not number
DISTILLED_STEPS = 4
#: a maker of distilled networks, whose name is also that of programs: it counts in the names of files only
_MAKER = "lightx2v"
#: what stands in for a name where the configuration says it
STATED = "(stated)"


def distilled_name(facts: CheckpointFacts, component: str) -> str:
    """The name of a file or folder that says that a network is distilled; empty when none does. Folders are those the
    files lie in, up to the model's own. What the configuration states outweighs names; ``STATED`` without one."""
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
    """The name, as conversions noted it, that says that networks are distilled: that of the first, when all have one;
    empty when not."""
    names = [distilled_by(facts.headers[name].metadata) for name in components if name in facts.headers]
    return names[0] if names and all(names) else ""


def half_distilled(facts: CheckpointFacts, components: Sequence[str]) -> tuple[str, ...]:
    """What a plan notes of networks of which only some are distilled by what was merged into them."""
    names = {name: distilled_by(facts.headers[name].metadata) for name in components if name in facts.headers}
    if not any(names.values()) or all(names.values()):
        return ()
    merged = ", ".join(f"{text!r} (in {name})" for name, text in names.items() if text)
    missing = ", ".join(name for name, text in names.items() if not text)
    return (
        f"{merged} says that it is distilled, and nothing says so of {missing}: steps, scheduler and guidance stay "
        "those of the model; give them for what you want",
    )


def distilled_steps(name: str) -> int:
    """The steps that a name says its network is distilled to; 4 when it does not say a number."""
    return sampling_steps(name) or DISTILLED_STEPS


def distilled_note(name: str, ordinary: str) -> str:
    """What a plan says of a network that a name calls distilled, and the options of an ordinary one."""
    if name == STATED:
        return "the network is distilled, as is asked: the distill scheduler and no guidance by default"
    steps = distilled_steps(name)
    count = (
        ""
        if steps == DISTILLED_STEPS
        else f" to {steps} steps (its option denoising_steps lists others than 4)"
    )
    return (
        f"the name {name!r} says that the network is distilled{count}: the distill scheduler and no guidance by "
        f"default; if it is not, give {ordinary}"
    )


def with_loras(recognition: Recognition, loras: Mapping[str, Sequence[str]]) -> Recognition:
    """The recognition of a network with LoRA files, given by name for each component: when all networks have one that
    is distilled, the defaults are those of a distilled network."""
    networks = [name for name in recognition.components if name in NETWORKS]
    telling = {
        network: name for network in networks for name in loras.get(network, ()) if says_distilled(name)
    }
    if not telling:
        return recognition
    names = ", ".join(sorted({repr(name) for name in telling.values()}))
    if missing := [network for network in networks if network not in telling]:
        note = (
            f"LoRA {names} is distilled, and there is none for {', '.join(missing)}: steps, scheduler and guidance "
            "stay those of the model; give them for what you want"
        )
        return evolve(recognition, notes=(*recognition.notes, note))
    steps = distilled_steps(next(iter(telling.values())))
    count = "" if steps == DISTILLED_STEPS else " (its option denoising_steps lists others than 4)"
    note = (
        f"LoRA {names} is distilled to {steps} steps{count}: the distill scheduler and no guidance by default; another "
        "scheduler, steps or guidance that are given win"
    )
    return evolve(
        recognition,
        architecture={**recognition.architecture, "distilled": steps},
        notes=(*recognition.notes, note),
    )
