"""Memory forecasts, and the choice of an offloader that stays within the limits. Reads no weights, imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, frozen

from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.model import MemoryConfig, RunConfig, Section
from lightx2v_core.discovery.answers import default_options
from lightx2v_core.discovery.registry import Registry, Rejection, Selection
from lightx2v_core.errors import PluginFault, RequestError
from lightx2v_core.plan import device
from lightx2v_core.plan.plan import MemoryForecast
from lightx2v_core.plan.recognize import ModelMatch
from lightx2v_core.plan.selection import Implementation, component_setting, structured_options
from lightx2v_core.spec.context import Budget, BuildContext, Device, Speeds
from lightx2v_core.spec.memory import OffloadForecast, Workload
from lightx2v_core.spec.specs import OffloaderSpec

#: host memory of a process that ran a tiny model: interpreter, torch, kernels (`lightx2v-core run` on Linux, CPU)
PROCESS = 450 * 2**20
#: device memory of the CUDA context and libraries; an estimate
CONTEXT = 600 * 2**20
#: fraction of the memory that ``auto`` plans with when no limit is given
USABLE = 0.95
#: operations per second of linear layers on a GPU, by compute capability; estimates, which `memory` overrides
_COMPUTE = {(9, 0): 4e14, (10, 0): 8e14, (12, 0): 1.5e14, (8, 9): 1.2e14, (8, 0): 2e14}
_OLDER_GPU, _CPU = 5e13, 1e11
#: bytes per second of a memory copy on the host, of PCIe 4.0 x16, and of an NVMe disk of the same generation
_HOST_COPY, _DEVICE_COPY, _DISK = 5e9, 25e9, 3e9


@frozen(kw_only=True)
class MemoryLimits:
    """Memory limits of a run, in bytes; None: no limit. A CPU has one memory, so only ``host`` is set."""

    device: int | None
    host: int | None


def limits(config: MemoryConfig, where: Device) -> MemoryLimits:
    """Return the configured limits. On a CPU the lower of the two applies."""
    if where.kind != "cpu":
        return MemoryLimits(device=config.vram_limit, host=config.ram_limit)
    given = [limit for limit in (config.vram_limit, config.ram_limit) if limit is not None]
    return MemoryLimits(device=None, host=min(given, default=None))


def speeds(config: MemoryConfig, where: Device) -> Speeds:
    """Return the configured speeds; missing ones are typical for the device."""
    on_cpu = where.kind == "cpu"
    compute = _CPU if on_cpu else _COMPUTE.get(where.capability, _OLDER_GPU)
    return Speeds(
        copy=config.copy_speed or (_HOST_COPY if on_cpu else _DEVICE_COPY),
        disk=config.disk_speed or _DISK,
        compute=compute if config.compute_speed is None else config.compute_speed * 1e12,
    )


def choose_offloaders(
    registry: Registry,
    loaded: LoadedConfig,
    match: ModelMatch,
    loads: Mapping[str, Workload],
    chosen: Mapping[str, Implementation[OffloaderSpec]],
    ctx: BuildContext,
    steps: int,
) -> Mapping[str, Implementation[OffloaderSpec]]:
    """Choose the least costly offloader that fits for the components that ``chosen`` lacks.

    ``chosen`` contains the components whose offloader is configured by name. Raises ``RequestError`` that lists the
    memory use of each candidate if none fits.
    """
    config = loaded.config
    rest = [name for name in loads if name not in chosen]
    if not rest:
        return chosen
    within = allowed(loaded, match, ctx.device)
    fitting: list[tuple[float, int, Implementation[OffloaderSpec], MemoryForecast]] = []
    rejected: dict[str, str] = {}
    for offloader in _candidates(registry, config, match, rest, ctx, rejected):
        both = {**chosen, **dict.fromkeys(rest, offloader)}
        label = f"{offloader.selection.name}{_options(offloader)}"
        try:
            result = forecast(both, loads, ctx, within, budgets(both, loads, ctx, within))
        except PluginFault as exc:
            rejected[label] = str(exc)
            continue
        if result.excess:
            rejected[label] = _takes(result, ctx.device)
        else:
            cost = result.exposed * steps + result.switching
            fitting.append((cost, len(fitting), offloader, result))
    if not fitting:
        lines = [f"  {name}: {why}" for name, why in rejected.items()]
        raise RequestError("\n".join([f"no offloader fits {_words(within)}:", *lines, _advice(ctx.device)]))
    # at equal cost, the one of higher priority
    _, _, best, result = min(fitting, key=lambda entry: entry[:2])
    why = f"auto: the least costly that fits {_words(within)}; needs {_takes(result, ctx.device)}"
    selection = evolve(
        best.selection,
        why=why,
        rejected=tuple(Rejection(name=name, reasons=(why,)) for name, why in rejected.items()),
    )
    return {**chosen, **dict.fromkeys(rest, Implementation(selection=selection, config=best.config))}


def named(loaded: LoadedConfig, match: ModelMatch) -> frozenset[str]:
    """Return the components whose offloader is configured by name, not ``auto``."""
    config = loaded.config
    return frozenset(
        name for name in match.recognition.components if _section(config, match, name).use != ("auto",)
    )


def _section(config: RunConfig, match: ModelMatch, name: str) -> Section:
    own: Section | None = component_setting(config, match.part(name), "offloader")[0]
    return own or config.offloader


def _candidates(
    registry: Registry,
    config: RunConfig,
    match: ModelMatch,
    rest: Sequence[str],
    ctx: BuildContext,
    rejected: dict[str, str],
) -> Iterator[Implementation[OffloaderSpec]]:
    """Yield every usable offloader with each set of options it offers, or with the configured options only.

    Adds the reasons against unusable ones to ``rejected``.
    """
    section = _section(config, match, rest[0])
    for candidate in registry.candidates(OffloaderSpec):
        if reasons := candidate.reasons(ctx):
            rejected[candidate.qualified] = "; ".join(reasons)
            continue
        given = {candidate.spec.name, candidate.qualified} & set(section.options)
        default = structured_options(section, registry, "offloader", candidate)
        for options in (default,) if given else candidate.spec.settings or (default,):
            yield Implementation(selection=Selection(chosen=candidate, why="auto"), config=options)


def allowed(loaded: LoadedConfig, match: ModelMatch, where: Device) -> MemoryLimits:
    """Return the configured limits. ``auto`` needs limits, so missing ones follow from the memory of the machine."""
    given = limits(loaded.config.memory, where)
    if named(loaded, match) == set(match.recognition.components):
        return given
    host = given.host or int(USABLE * device.host_memory()) or None
    if where.kind == "cpu":
        return MemoryLimits(device=None, host=host)
    return MemoryLimits(device=given.device or int(USABLE * where.memory) or None, host=host)


def forecast(
    offloaders: Mapping[str, Implementation[OffloaderSpec]],
    loads: Mapping[str, Workload],
    ctx: BuildContext,
    within: MemoryLimits,
    shares: Mapping[str, Budget],
) -> MemoryForecast:
    """Add up the forecasts of all offloaders, each for its components within the ``shares`` of ``budgets``."""
    groups, on_cpu = grouped(offloaders), ctx.device.kind == "cpu"
    answers = [_ask(offloaders, group, loads, evolve(ctx, budget=shares[group[0]])) for group in groups]
    weights = sum(answer.weights for answer in answers)
    peak = weights + max((answer.activations for answer in answers), default=0)
    host = PROCESS + sum(answer.host for answer in answers)
    if not on_cpu:
        host += max(load.largest for load in loads.values())  # the tensor in transfer to the device
    steps = [load.passes * load.seconds for load in loads.values()]
    return MemoryForecast(
        device_weights=weights,
        device_peak=peak if on_cpu else peak + CONTEXT,
        host_peak=peak + host if on_cpu else host,
        device_total=ctx.device.memory,
        device_limit=within.device,
        host_limit=within.host,
        moved=max((answer.moved for answer in answers), default=0),
        computing=max(steps, default=0.0),
        exposed=max((answer.exposed for answer in answers), default=0.0),
        switching=sum(answer.switching for answer in answers),
        scratch=sum(answer.scratch for answer in answers),
        details=tuple(dict.fromkeys(answer.detail for answer in answers if answer.detail)),
    )


def budgets(
    offloaders: Mapping[str, Implementation[OffloaderSpec]],
    loads: Mapping[str, Workload],
    ctx: BuildContext,
    within: MemoryLimits,
) -> Mapping[str, Budget]:
    """Return the budget of each component's offloader: the limits minus the minimum use of the other offloaders."""
    groups, on_cpu = grouped(offloaders), ctx.device.kind == "cpu"
    least = [_ask(offloaders, group, loads, ctx) for group in groups]
    shares = {}
    for index, group in enumerate(groups):
        others = [answer for at, answer in enumerate(least) if at != index]
        weights, host = (
            sum(answer.weights for answer in others),
            PROCESS + sum(answer.host for answer in others),
        )
        passing = max(load.largest for load in loads.values())  # the tensor in transfer to the device
        taken, host = (weights + host, weights + host) if on_cpu else (weights + CONTEXT, host + passing)
        # weights that this offloader keeps in place coexist with the activations of other components
        beside = max((answer.activations for answer in others), default=0)
        share = Budget(
            device=_less(within.host if on_cpu else within.device, taken),
            host=_less(within.host, taken if on_cpu else host),
            process=PROCESS,
            activations={name: max(loads[name].activations, beside) for name in group},
        )
        shares.update(dict.fromkeys(group, share))
    return shares


def grouped(offloaders: Mapping[str, Implementation[OffloaderSpec]]) -> list[list[str]]:
    """Group the components that share an offloader and its options: one object serves each group."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, offloader in offloaders.items():
        groups.setdefault((offloader.selection.chosen.qualified, repr(offloader.config)), []).append(name)
    return list(groups.values())


def _ask(
    offloaders: Mapping[str, Implementation[OffloaderSpec]],
    group: Sequence[str],
    loads: Mapping[str, Workload],
    ctx: BuildContext,
) -> OffloadForecast:
    chosen = offloaders[group[0]]
    return chosen.spec.forecast(chosen.config, ctx, [loads[name] for name in group])


def _less(limit: int | None, taken: int) -> int | None:
    return None if limit is None else max(limit - taken, 0)


def _takes(result: MemoryForecast, where: Device) -> str:
    host = f"{result.host_peak / 1e9:.2f} GB of host memory"
    return host if where.kind == "cpu" else f"{result.device_peak / 1e9:.2f} GB of device memory and {host}"


def _words(within: MemoryLimits) -> str:
    limits = [
        f"{limit / 1e9:.2f} GB of {what} memory"
        for what, limit in (("device", within.device), ("host", within.host))
        if limit is not None
    ]
    return " and ".join(limits) or "this machine"


def _advice(where: Device) -> str:
    what = "--ram-limit" if where.kind == "cpu" else "--vram-limit or --ram-limit"
    return f"  raise {what} to one of the values above, or reduce --size or --frames"


def _options(offloader: Implementation[OffloaderSpec]) -> str:
    from lightx2v_core.config.structure import unstructure

    values: dict[str, object] = unstructure(offloader.config)
    default: dict[str, object] = unstructure(default_options(offloader.spec))
    changed = [f"{key}={value}" for key, value in values.items() if value != default[key]]
    return f" ({', '.join(changed)})" if changed else ""
