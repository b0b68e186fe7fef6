"""``lightx2v-core download``: fetches the files that a run of a model needs into one folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from lightx2v_core.api import (
    Cancelled,
    ConfigError,
    Emit,
    Failed,
    Interruption,
    LightX2VError,
    ModelSpec,
    PluginSet,
    RequestError,
    Warned,
    common_options,
    current_interruption,
    escaped,
    plugins_from,
    progress_listener,
)
from lightx2v_hub.events import Downloaded
from lightx2v_hub.fetch import fetch
from lightx2v_hub.local import file_states, free_bytes
from lightx2v_hub.remote import KEPT, Listing, list_repository
from lightx2v_hub.repositories import CatalogEntry, DownloadRequest, catalog, find, sources
from lightx2v_hub.selection import FileSelection, select_by_names, select_files, select_matching, without
from lightx2v_hub.show import catalog_json, catalog_text, commands, describe, selection_text


@frozen(kw_only=True)
class CommandLine:
    """Parsed command line: the requested files and their destination."""

    request: DownloadRequest
    to: Path | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    revision: str | None
    force: bool


@click.command("download")
@click.argument("what", required=False)
@click.argument("files", nargs=-1)
@click.option("--task", metavar="TASK", help="Task: t2v, i2v, flf2v, vace, animate.")
@click.option(
    "--precision",
    "precisions",
    metavar="[COMPONENT=]NAME",
    multiple=True,
    help="original (default), fp8, int8, ... or all; comma-separated; COMPONENT= limits it to one component.",
)
@click.option("--distilled", is_flag=True, help="Select a network distilled to few steps.")
@click.option("--lora", is_flag=True, help="Fetch LoRA files instead of a model.")
@click.option(
    "--with", "extra", metavar="COMPONENT", multiple=True, help="Add an optional component, such as tiny_vae."
)
@click.option(
    "--to",
    "--local-dir",
    "to",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder; default: models/NAME.",
)
@click.option("--include", metavar="PATTERN", multiple=True, help="Fetch exactly the files that match.")
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Skip the files that match.")
@click.option("--revision", metavar="REV", help="Branch, tag or commit of the named repository.")
@click.option("--force", is_flag=True, help="Replace different files with the same names.")
@click.option("--resume-download", is_flag=True, hidden=True)  # always on; accepted for scripts
@click.option("--list", "list_", is_flag=True, help="List the known names and exit.")
@click.option("--dry-run", is_flag=True, help="List files and sizes and exit.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON event per line on stdout, and nothing else."
)
@click.option("--quiet", is_flag=True, help="Show warnings and errors only.")
@common_options
def command(**parameters: Any) -> None:
    """Fetch the files of a model that a run needs, and no others.

    WHAT: a name from --list, a repository (owner/name), or a model family with --task.
    Files that the repository lacks (encoders, VAE, tokenizer, config.json) come from the official one. FILES are
    patterns as for --include. An interrupted download resumes when the command is run again.

    HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE and the other variables of huggingface_hub apply.
    """
    parameters.pop("resume_download")
    as_json, quiet = parameters.pop("as_json"), parameters.pop("quiet")
    dry_run, list_ = parameters.pop("dry_run"), parameters.pop("list_")
    interruption = current_interruption()
    interruption.kept = KEPT
    with progress_listener(as_json=as_json, quiet=quiet) as show:
        emit = interruption.watched(show)
        try:
            plugins = plugins_from(parameters)
            for warning in plugins.warnings:
                emit(Warned(message=warning))
            models = _models(plugins)
            entries = catalog(models, lambda text: emit(Warned(message=text)))
            if list_:
                click.echo(catalog_json(entries) if as_json else catalog_text(entries), color=True)
                return
            line = _command_line(parameters)
            entry, selection = _select(line, entries, models)
            folder = (line.to or _folder(line, entry, entries)).expanduser()
            states = file_states(folder, selection.files)
            ready = describe(folder, selection, states, free_bytes(folder.absolute()))
            emit(ready)
            if not as_json and not quiet:
                click.echo(selection_text(ready), color=True)
            if not dry_run:
                after = commands(folder, entry, line.request, selection)
                _fetch(folder, selection, after, emit, interruption, force=line.force)
                if not as_json and not quiet:
                    click.echo("\n".join(map(escaped, after)), color=True)
        except LightX2VError as exc:
            show(Failed(message=str(exc), exit_status=exc.exit_status))
            raise
        except KeyboardInterrupt:
            show(Failed(message=f"interrupted; {KEPT}", exit_status=Cancelled.exit_status))
            raise
        except Exception as exc:
            show(Failed(message=f"unexpected {type(exc).__name__}: {exc}", exit_status=1))
            raise


def _models(plugins: PluginSet) -> list[ModelSpec[Any]]:
    """List the models of the plugins by priority, highest first."""
    provided = sorted(plugins.provided(ModelSpec), key=lambda model: (-model.spec.priority, model.spec.name))
    return [model.spec for model in provided]


def _fetch(
    folder: Path,
    selection: FileSelection,
    after: Sequence[str],
    emit: Emit,
    interruption: Interruption,
    *,
    force: bool,
) -> None:
    start = time.monotonic()
    states = fetch(folder.absolute(), selection.files, force=force, emit=emit)
    interruption.finish()
    emit(
        Downloaded(
            folder=str(folder),
            files=len(selection.files),
            fetched=sum(state.missing for state in states),
            seconds=time.monotonic() - start,
            commands=list(after),
        )
    )


def _command_line(given: Mapping[str, Any]) -> CommandLine:
    """Parse the parameters of the command. Raises ``RequestError`` for options that exclude each other."""
    if given["what"] is None:
        raise RequestError("no download is named; `lightx2v-core download --list` lists the known names")
    request = DownloadRequest(
        what=given["what"],
        task=given["task"],
        precisions=_precisions(given["precisions"]),
        distilled=True if given["distilled"] else None,
        lora=given["lora"],
        extra=tuple(given["extra"]),
    )
    include = (*given["files"], *given["include"])
    if include and request.selecting:
        raise RequestError(
            f"--include names files, {', '.join(request.selecting)} selects them automatically; use one or the other"
        )
    return CommandLine(
        request=request,
        to=given["to"],
        include=include,
        exclude=given["exclude"],
        revision=given["revision"],
        force=given["force"],
    )


def _precisions(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parse ``fp8``, ``original,fp8`` and ``text_encoder=original`` to component -> precisions."""
    precisions: dict[str, tuple[str, ...]] = {}
    for text in texts:
        component, equals, names = text.rpartition("=")
        given = tuple(name.strip() for name in names.split(",") if name.strip())
        if not given or (equals and not component.strip()):
            raise ConfigError(f"--precision: expected NAME or COMPONENT=NAME, got {text!r}")
        precisions[component.strip()] = (*precisions.get(component.strip(), ()), *given)
    return precisions


def _select(
    line: CommandLine, entries: Sequence[CatalogEntry], models: Sequence[ModelSpec[Any]]
) -> tuple[CatalogEntry | None, FileSelection]:
    """Select the requested files; with their catalog entry unless patterns or names selected them."""
    request = line.request
    if line.include:
        listing = list_repository(_repo(request.what, entries), line.revision)
        return None, without(select_matching(listing, line.include), line.exclude)
    entry = find(request, entries)
    if entry is None:
        if request.selecting:
            raise RequestError(
                f"no loaded plugin knows {request.what}, so {', '.join(request.selecting)} cannot apply; name files "
                "with --include, or omit the option to select files named like those of a known model"
            )
        listing = list_repository(request.what, line.revision)
        return None, without(select_by_names(listing, models), line.exclude)

    @cache
    def listed(repo: str) -> Listing:
        return list_repository(repo, line.revision if repo == entry.repository.repo else None)

    return entry, without(select_files(request, sources(entry, entries), listed), line.exclude)


def _repo(what: str, entries: Sequence[CatalogEntry]) -> str:
    """Return the repository for named files, which several entries may share."""
    for entry in entries:
        repo = entry.repository.repo
        if what.casefold() in (repo.casefold(), repo.casefold().partition("/")[2], entry.name):
            return repo
    if "/" not in what:
        if not any(what.casefold() in (entry.model.name, *entry.model.aliases) for entry in entries):
            find(DownloadRequest(what=what), entries)  # raises an error with suggestions
        raise RequestError(
            f"--include needs one repository, and {what!r} is a family of models; give owner/name"
        )
    return what


def _folder(line: CommandLine, entry: CatalogEntry | None, entries: Sequence[CatalogEntry]) -> Path:
    """Return ``models/NAME``, with the repository's name, or the entry's if a repository has several models."""
    if entry is None:
        return Path("models") / _repo(line.request.what, entries).partition("/")[2]
    sharing = [other for other in entries if other.repository.repo == entry.repository.repo]
    return Path("models") / (entry.repository.repo.partition("/")[2] if len(sharing) == 1 else entry.name)
