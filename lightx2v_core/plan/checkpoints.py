"""The components of a checkpoint as a plan lists them, and warnings about them."""

from __future__ import annotations

from lightx2v_core.checkpoint import verify
from lightx2v_core.checkpoint.candidates import false_claim
from lightx2v_core.checkpoint.experts import claims_other, stems
from lightx2v_core.checkpoint.formats import accounted, main_format
from lightx2v_core.checkpoint.listing import sibling_files
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.plan.plan import MemoryForecast, PlannedComponent
from lightx2v_core.plan.recognize import ModelMatch
from lightx2v_core.spec.memory import Workload


def planned_component(match: ModelMatch, name: str, need: Workload, loaded: LoadedConfig) -> PlannedComponent:
    """Describe one component: its files, the rule that chose them, and their contents."""
    component, header = match.components[name], match.components[name].header
    used = {*match.recognition.expected[name], *accounted(header)}
    return PlannedComponent(
        name=name,
        summary=match.part(name).summary,
        files=tuple(str(path) for path in component.files),
        rule=_origin_of(component.rule, loaded),
        layout=component.mapped.layout,
        tensors=len(header),
        parameters=header.parameters,
        stored=header.nbytes,
        precision=header.precision,
        scheme=main_format(header),
        passed_over=component.passed_over,
        # nearly all of the thousands of tensors are read, so it is cheaper to subtract the others
        read=header.nbytes - sum(header.tensors[tensor].nbytes for tensor in header.tensors.keys() - used),
        weights=need.weights,
        activations=need.activations,
    )


def _origin_of(rule: str, loaded: LoadedConfig) -> str:
    """Return the rule that chose a file. A configuration key is given as the user wrote it, with its place."""
    key, comma, rest = rule.partition(", ")
    if not key.startswith("components."):
        return rule
    origin = loaded.origin(*key.split("."))
    if origin == "default":
        return rule
    return (origin if " in " in origin or origin.startswith("-") else f"{key} in {origin}") + comma + rest


def checkpoint_warnings(match: ModelMatch, needed: MemoryForecast) -> list[str]:
    """Collect the warnings about a checkpoint and its memory use."""
    recognition = match.recognition
    warnings = [f"running as {recognition.variant} as requested, but {doubt}" for doubt in recognition.doubts]
    for name in recognition.components:
        part, component = match.part(name), match.components[name]
        if doubt := false_claim(component.files[0].name, component.header):
            warnings.append(f"{name}: {component.files[0].name}: {doubt}")
        extra = verify.unused(match.components[name].header, recognition.expected[name], part.spare)
        if part.experts and (
            says := claims_other(part, file := component.files[0], stems(sibling_files(file)))
        ):
            warnings.append(f"{file} is used as {name}, but {says}")
        reported = recognition.doubts and part.main  # the doubts name these tensors
        if extra and part.whole and not reported:
            warnings.append(
                f"{name}: {len(extra)} tensors of the file are not part of the model, such as {', '.join(extra[:3])}"
            )
    if needed.excess:
        warnings.append(f"{needed.excess}: this run will be refused")
    if needed.impossible:
        warnings.append(
            f"the weights need {needed.device_weights / 2**30:.1f} GiB and the device has "
            f"{needed.device_total / 2**30:.1f} GiB: use offloading or a smaller dtype"
        )
    elif 0 < needed.device_total < needed.device_peak:
        warnings.append(
            f"the forecast peak of {needed.device_peak / 2**30:.1f} GiB exceeds the memory of the device "
            f"({needed.device_total / 2**30:.1f} GiB): the run may run out of memory"
        )
    return warnings
