"""Batches (``run --prompt-file``): one job per line, with one loaded model.

A failed job is reported and the others continue. Running the same file again only runs jobs that are not done.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve, frozen

from lightx2v_core.checkpoint.staging import claim_outputs
from lightx2v_core.config import jsonc
from lightx2v_core.config.keywords import lora_configs
from lightx2v_core.config.load import LoadedConfig
from lightx2v_core.config.structure import is_text
from lightx2v_core.config.textfile import read_text
from lightx2v_core.discovery.isolation import unended
from lightx2v_core.discovery.plugins import PluginSet
from lightx2v_core.errors import ConfigError, LightX2VError, RequestError, RunError, first_lines, shortened
from lightx2v_core.events import Emit, JobDone, JobStarted, PlanReady
from lightx2v_core.plan.output import check_place, named_output, record_path
from lightx2v_core.plan.plan import PlannedOutput
from lightx2v_core.plan.resolution import Resolution
from lightx2v_core.plan.resolve import check_ready, resolve, resolve_job, with_adapters, with_prompt
from lightx2v_core.runtime.record import describe_inputs, describe_loras
from lightx2v_core.spec.request import Request

if TYPE_CHECKING:
    from lightx2v_core.runtime.pipeline import Pipeline

#: the largest prompt file, in bytes: 100,000 prompts of 1,300 bytes
BYTES = 128 << 20
#: characters stripped from both ends of a line
_BLANK = " \t\u00a0\u3000"


@frozen(kw_only=True)
class Line:
    """A job as parsed from its line: request values and the path of the result."""

    number: int
    request: Mapping[str, Any]
    output: str


def read_jobs(path: Path, output: str | None) -> list[Line]:
    """Read the jobs of a prompt file.

    A line is a prompt, or a JSON object with request values, ``loras`` and ``output``. Empty lines and lines that start
    with ``#`` are skipped. Lines end at LF, CR LF or CR; other line separators (U+2028, U+0085, form feeds) occur in
    copied text and are part of a prompt. Raises ``ConfigError`` with the line number.
    """
    text = read_text(path, "prompt file", BYTES)
    jobs = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip(_BLANK)
        if not line.strip() or line.startswith("#"):
            continue
        request = jsonc.loads(line, f"{path}, line {number}") if line.startswith("{") else {"prompt": line}
        jobs.append(Line(number=number, output=_output(request, number, output), request=request))
    if not jobs:
        raise ConfigError(f"prompt file {str(path)!r} has no jobs")
    twice = [output for output, count in Counter(job.output for job in jobs).items() if count > 1]
    if twice:
        raise ConfigError(f"{path}: several jobs write {shortened([repr(name) for name in sorted(twice)])}")
    return jobs


def run_batch(
    jobs: Sequence[Line], loaded: LoadedConfig, plugins: PluginSet, *, emit: Emit, dry_run: bool = False
) -> None:
    """Run the jobs that are not done. Raises ``RunError`` at the end if some failed."""
    base = resolve(loaded, plugins)
    plans = _Plans(base, loaded)
    failed: list[str] = []
    pipeline: Pipeline | None = None
    with ExitStack() as opened:
        for index, job in enumerate(jobs):
            emit(JobStarted(index=index, count=len(jobs), line=job.number, output=job.output))
            try:
                resolved, request, output, done = plans.of(job)
                state = "done before"
                if not done:
                    state = "planned" if dry_run else "done"
                    if not dry_run:
                        if pipeline is None:
                            from lightx2v_core.runtime.pipeline import Pipeline  # not needed for a dry run
                            from lightx2v_core.runtime.proof.proven import proven

                            base = proven(base)
                            plans = _Plans(base, loaded)
                            resolved, request, output, _ = plans.of(job)
                            emit(PlanReady(plan=base.plan.to_json()))
                            with unended():
                                pipeline = opened.enter_context(Pipeline.load(base, on_event=emit))
                        if request != resolved.plan.request:
                            resolved = with_prompt(resolved, request.prompt)
                        pipeline.use_adapters(resolved)
                        with unended(), claim_outputs(*results(output)):
                            pipeline.generate_to(resolved, output, on_event=emit)
                emit(JobDone(index=index, line=job.number, state=state, message=""))
            except LightX2VError as exc:
                failed.append(f"line {job.number}: {exc}")
                emit(JobDone(index=index, line=job.number, state="failed", message=str(exc)))
    if failed:
        lines = "\n  ".join(first_lines([line for message in failed for line in message.split("\n")]))
        raise RunError(f"{len(failed)} of {len(jobs)} jobs failed; the others are done:\n  {lines}")


def results(output: PlannedOutput, dump: str | None = None) -> list[Path]:
    """List the paths that a run writes: result, run record and tensor dump."""
    path = Path(output.path)
    beside = [record_path(path, output.kind)] if output.record and output.kind != "frames" else []
    return [path, *beside, *([] if dump is None else [Path(dump)])]


class _Plans:
    """Plans and output paths of jobs.

    Among jobs that only differ in the prompt, the first is planned and its plan is reused; ``with_prompt`` derives the
    plans of those that are run.
    """

    def __init__(self, base: Resolution, loaded: LoadedConfig) -> None:
        """Set the resolution and the configuration that all jobs share."""
        self._base, self._loaded = base, loaded
        self._last: tuple[dict[str, object], Resolution] | None = None
        self._tried: set[Path] = set()

    def of(self, job: Line) -> tuple[Resolution, Request, PlannedOutput, bool]:
        """Return the plan (possibly for another prompt), request and output of a job, and whether it is already done.

        Raises ``LightX2VError`` for an invalid job.
        """
        values = dict(job.request)
        prompt = values.pop("prompt", None)
        if self._last is not None and self._last[0] == values and _is_prompt(prompt):
            resolved = self._last[1]
            request = evolve(resolved.plan.request, prompt=prompt)
        else:
            resolved = self._resolved(job)
            request = resolved.plan.request
            if _is_prompt(prompt):
                self._last = (values, resolved)
        config = evolve(self._loaded.config.output, path=job.output)
        output = named_output(config, resolved.plan.variant, request)
        done = _done(resolved, request, output)
        if not done:  # a finished job would conflict with its own result
            check_place(output, self._tried)
        return resolved, request, output, done

    def _resolved(self, job: Line) -> Resolution:
        base, request = self._base, dict(job.request)
        if "loras" in request:
            base = with_adapters(base, lora_configs(request.pop("loras")))
        resolved = resolve_job(base, request)
        check_ready(resolved)
        return resolved


def _is_prompt(value: object) -> bool:
    """Return whether a value is valid as a prompt."""
    return isinstance(value, str) and is_text(value)


def _done(resolved: Resolution, request: Request, output: PlannedOutput) -> bool:
    """Return whether the output exists with a run record of exactly this request."""
    if not os.path.exists(output.path):  # first: of a hundred thousand jobs, few are there
        return False
    record = record_path(Path(output.path), output.kind)
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    wanted = json.loads(json.dumps(asdict(request)))
    return (
        isinstance(recorded, dict)
        and recorded.get("request") == wanted
        and recorded.get("inputs") == json.loads(json.dumps(describe_inputs(resolved.subject.inputs)))
        and recorded.get("variant") == resolved.plan.variant
        and recorded.get("loras") == json.loads(json.dumps(describe_loras(resolved.plan)))
    )


def _output(request: Any, number: int, output: str | None) -> str:
    """Return the path of a job's result: its own ``output``, else a numbered file in the folder of ``--output``."""
    if not isinstance(request, dict):
        raise ConfigError(f"line {number}: expected an object")
    own = request.pop("output", None)
    if own is not None and not isinstance(own, str):
        raise ConfigError(f"line {number}: output must be a path, got {own!r}")
    folder = Path(output) if output is not None else Path("outputs")
    if own is not None:
        # not a Path: the / at its end marks a folder of frames
        return own if output is None else os.path.join(folder, own)
    return str(folder / f"{number:05d}.mp4")


def check_options(loaded: LoadedConfig, dump: str | None) -> None:
    """Raise ``RequestError`` for options that do not apply to batches."""
    if loaded.config.prompt is not None:
        raise RequestError("--prompt and --prompt-file exclude each other; each line of the file is a prompt")
    if dump is not None:
        raise RequestError("--dump-tensors cannot be used with --prompt-file; it saves a single run")
    path = loaded.config.output.path
    if path is not None and Path(path).suffix:
        raise RequestError(f"--output {path!r}: with --prompt-file it must be a folder")
