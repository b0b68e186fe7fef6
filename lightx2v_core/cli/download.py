"""``lightx2v-core download``: the files of a model that a run needs, put together in one folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from lightx2v_core.cli.common import common_options, plugins_from
from lightx2v_core.cli.interruption import INTERRUPTED, Interruption, current_interruption
from lightx2v_core.cli.progress import progress_listener
from lightx2v_core.cli.show_download import catalog_json, catalog_text, choice_text, commands, described
from lightx2v_core.cli.terminal import escaped
from lightx2v_core.discovery.registry import Registry
from lightx2v_core.errors import ConfigError, LightX2VError, RequestError
from lightx2v_core.events import Downloaded, Emit, Failed, Warned
from lightx2v_core.hub.catalog import Ask, Entry, catalog, find, sources
from lightx2v_core.hub.choice import Choice, chosen, matching, recognized, without
from lightx2v_core.hub.fetch import fetch
from lightx2v_core.hub.local import examined, free_bytes
from lightx2v_core.hub.remote import KEPT, Listing, listing
from lightx2v_core.spec.specs import ModelSpec


@frozen(kw_only=True)
class Request:
    """What a command line asks for."""

    ask: Ask
    to: Path | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    revision: str | None
    force: bool


@click.command("download")
@click.argument("what", required=False)
@click.argument("files", nargs=-1)
@click.option("--task", metavar="TASK", help="The task it is for: t2v, i2v, flf2v, vace, animate.")
@click.option(
    "--precision",
    "precisions",
    metavar="[COMPONENT=]NAME",
    multiple=True,
    help="original (the default), fp8, int8, ... or all; several with commas; of one component with its name.",
)
@click.option("--distilled", is_flag=True, help="A network distilled to few steps.")
@click.option("--lora", is_flag=True, help="The LoRA files instead of a model.")
@click.option(
    "--with", "extra", metavar="COMPONENT", multiple=True, help="Also an optional part, such as tiny_vae."
)
@click.option(
    "--to",
    "--local-dir",
    "to",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder; default: models/NAME.",
)
@click.option(
    "--include", metavar="PATTERN", multiple=True, help="Exactly the files like this, and no others."
)
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Not the files like this.")
@click.option("--revision", metavar="REV", help="Branch, tag or commit of the repository that is named.")
@click.option("--force", is_flag=True, help="Replace other files that have the same names.")
@click.option("--resume-download", is_flag=True, hidden=True)  # always on; scripts give it
@click.option("--list", "list_", is_flag=True, help="Show what can be asked for by name, and stop.")
@click.option("--dry-run", is_flag=True, help="List files and sizes, and stop.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON event a line on stdout, and nothing else."
)
@click.option("--quiet", is_flag=True, help="Show warnings and errors only.")
@common_options
def command(**parameters: Any) -> None:
    """Fetch the files of a model that a run needs, and no others.

    WHAT is a name from --list, a repository (owner/name), or a model family with --task.
    What the repository lacks (encoders, VAE, tokenizer, config.json) comes from the official one. FILES are patterns
    like those of --include. What was interrupted goes on where it ended.

    HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE and the other variables of huggingface_hub hold.
    """
    parameters.pop("resume_download")
    as_json, quiet = parameters.pop("as_json"), parameters.pop("quiet")
    dry_run, list_ = parameters.pop("dry_run"), parameters.pop("list_")
    interruption = current_interruption()
    interruption.kept = KEPT
    with progress_listener(as_json=as_json, quiet=quiet) as tell:
        emit = interruption.watched(tell)
        try:
            plugins = plugins_from(parameters)
            for warning in plugins.warnings:
                emit(Warned(message=warning))
            models = [
                item.spec
                for item in Registry(plugins).candidates("model")
                if isinstance(item.spec, ModelSpec)
            ]
            entries = catalog(models, lambda text: emit(Warned(message=text)))
            if list_:
                click.echo(catalog_json(entries) if as_json else catalog_text(entries), color=True)
                return
            request = _request(parameters)
            entry, choice = _choose(request, entries, models)
            folder = (request.to or _folder(request, entry, entries)).expanduser()
            ready = described(folder, choice, examined(folder, choice.wanted), free_bytes(folder.absolute()))
            emit(ready)
            if not as_json and not quiet:
                click.echo(choice_text(ready), color=True)
            if not dry_run:
                after = commands(folder, entry, request.ask, choice)
                _fetch(folder, choice, request, after, emit, interruption)
                if not as_json and not quiet:
                    click.echo("\n".join(map(escaped, after)), color=True)
        except LightX2VError as exc:
            tell(Failed(message=str(exc), exit_status=exc.exit_status))
            raise
        except KeyboardInterrupt:
            tell(Failed(message=f"interrupted; {KEPT}", exit_status=INTERRUPTED))
            raise
        except Exception as exc:
            tell(Failed(message=f"unexpected {type(exc).__name__}: {exc}", exit_status=1))
            raise


def _fetch(
    folder: Path,
    choice: Choice,
    request: Request,
    after: Sequence[str],
    emit: Emit,
    interruption: Interruption,
) -> None:
    start = time.monotonic()
    states = fetch(folder.absolute(), choice.wanted, force=request.force, emit=emit)
    interruption.finish()
    emit(
        Downloaded(
            folder=str(folder),
            files=len(choice.wanted),
            fetched=sum(state.missing for state in states),
            seconds=time.monotonic() - start,
            commands=list(after),
        )
    )


def _request(given: Mapping[str, Any]) -> Request:
    """The command line in the words of the catalog. ``RequestError`` for options that contradict each other."""
    if given["what"] is None:
        raise RequestError(
            "nothing to download is named; `lightx2v-core download --list` shows what is known"
        )
    ask = Ask(
        what=given["what"],
        task=given["task"],
        precisions=_precisions(given["precisions"]),
        distilled=True if given["distilled"] else None,
        lora=given["lora"],
        extra=tuple(given["extra"]),
    )
    include = (*given["files"], *given["include"])
    if include and ask.chooses:
        raise RequestError(
            f"--include names files and {', '.join(ask.chooses)} lets the program choose them; give one or the other"
        )
    return Request(
        ask=ask,
        to=given["to"],
        include=include,
        exclude=given["exclude"],
        revision=given["revision"],
        force=given["force"],
    )


def _precisions(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``fp8``, ``original,fp8`` and ``text_encoder=original``, as component -> precisions."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        component, equals, names = text.rpartition("=")
        wanted = tuple(name.strip() for name in names.split(",") if name.strip())
        if not wanted or (equals and not component.strip()):
            raise ConfigError(f"--precision: expected NAME or COMPONENT=NAME, got {text!r}")
        found[component.strip()] = (*found.get(component.strip(), ()), *wanted)
    return found


def _choose(
    request: Request, entries: Sequence[Entry], models: Sequence[ModelSpec[Any]]
) -> tuple[Entry | None, Choice]:
    """The files that are meant; with the entry they belong to, when the program chose them."""
    ask = request.ask
    if request.include:
        listed = listing(_repo(ask.what, entries), request.revision)
        return None, without(matching(listed, request.include), request.exclude)
    entry = find(ask, entries)
    if entry is None:
        if ask.chooses:
            raise RequestError(
                f"no loaded plugin knows {ask.what}, so {', '.join(ask.chooses)} has no meaning for it; say which "
                "files with --include, or leave it out: files named like those of a known model are taken"
            )
        return None, without(recognized(listing(ask.what, request.revision), models), request.exclude)

    @cache
    def list_repo(repo: str) -> Listing:
        return listing(repo, request.revision if repo == entry.repository.repo else None)

    return entry, without(chosen(ask, sources(entry, entries), list_repo), request.exclude)


def _repo(what: str, entries: Sequence[Entry]) -> str:
    """The repository that is meant where files are named: many entries may share it."""
    for entry in entries:
        repo = entry.repository.repo
        if what.casefold() in (repo.casefold(), repo.casefold().partition("/")[2], entry.name):
            return repo
    if "/" not in what:
        if not any(what.casefold() in (entry.model.name, *entry.model.aliases) for entry in entries):
            find(Ask(what=what), entries)  # says what it may have meant
        raise RequestError(
            f"--include is for one repository, and {what!r} is a family of models; give owner/name"
        )
    return what


def _folder(request: Request, entry: Entry | None, entries: Sequence[Entry]) -> Path:
    """``models/NAME``: the repository's name, or the entry's where a repository holds several models."""
    if entry is None:
        return Path("models") / _repo(request.ask.what, entries).partition("/")[2]
    sharing = [item for item in entries if item.repository.repo == entry.repository.repo]
    return Path("models") / (entry.repository.repo.partition("/")[2] if len(sharing) == 1 else entry.name)
