"""What a repository of the hub holds, asked through ``huggingface_hub``, and what its failures mean.

``huggingface_hub`` is imported when a repository is asked for. Its environment variables hold: ``HF_ENDPOINT`` for
mirrors, ``HF_TOKEN``, ``HF_HUB_OFFLINE``, its timeouts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from attrs import frozen

from lightx2v_core.api import LightX2VError, RequestError, RunError

#: below this folder lie the records of what was fetched; no repository may write there
RECORDS = ".cache/huggingface"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
#: packages whose exceptions mean that the connection failed; which of them is there depends on huggingface_hub
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "ssl", "socket")
KEPT = "what was fetched is kept, and the same command goes on from there"


@frozen(kw_only=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and the hashes it must have."""

    repo: str
    commit: str
    path: str
    size: int
    #: SHA-256 of the content; None for small files, which git keeps itself
    sha256: str | None
    #: git's SHA-1 of the content (of the pointer where there is a SHA-256)
    blob: str

    @property
    def etag(self) -> str:
        """What tells versions of it apart; the one that huggingface_hub's own records hold."""
        return self.sha256 or self.blob


@frozen(kw_only=True)
class Listing:
    """The files of a repository at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]


def list_repository(repo: str, revision: str | None) -> Listing:
    """List the files of a repository at a branch, tag or commit. Raises as ``failures`` says.

    ``RequestError`` when a name in it could lead out of the folder it is written to: nothing of such a repository is
    fetched.
    """
    if not _REPO.fullmatch(repo):
        raise RequestError(f"{repo!r} is no repository: give owner/name")
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.hf_api import RepoFile

    api = huggingface_hub.HfApi(library_name="lightx2v-core")
    with failures(repo, revision):
        info = api.model_info(repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        commit = str(info.sha)
        tree = [
            file
            for file in api.list_repo_tree(repo, recursive=True, revision=commit)
            if isinstance(file, RepoFile)
        ]
    for file in tree:
        if problem := unsafe(file.path):
            raise RequestError(
                f"{repo} lists a file {file.path!r}, {problem}; nothing is fetched from such a repository"
            )
    return Listing(
        repo=repo,
        commit=commit,
        files=tuple(
            RemoteFile(
                repo=repo,
                commit=commit,
                path=file.path,
                size=int(file.lfs.size if file.lfs is not None else file.size),
                sha256=None if file.lfs is None else str(file.lfs.sha256),
                blob=str(file.blob_id),
            )
            for file in tree
        ),
    )


def unsafe(path: str) -> str:
    """Say why a path from a listing must not be written below a folder, on any system; empty when it may be."""
    if not path or any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "whose name holds control characters" if path else "whose name is empty"
    parts = path.split("/")
    if path.startswith("/"):
        return "which is an absolute path"
    if "\\" in path or any(PureWindowsPath(part).drive for part in parts):
        return "which is a path elsewhere on Windows"
    if any(part in ("", ".", "..") for part in parts):
        return "which leaves its folder or is none"
    if any(len(part.encode()) > 255 for part in parts):
        return "whose name is too long for a file"
    if PurePosixPath(path.casefold()).is_relative_to(RECORDS):
        return f"which lies where the records of downloads are kept ({RECORDS})"
    return ""


def endpoint() -> str:
    """Name the hub that is asked, by its address."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextmanager
def failures(repo: str, revision: str | None = None, file: str = "") -> Iterator[None]:
    """Turn whatever goes wrong on the way to a repository into one message that says what to do.

    Raises:
        RequestError: it is not there, or may not be read by this user.
        RunError: the hub, or the way to it, failed; the same command can go on later.
    """
    try:
        yield
    except LightX2VError:
        raise
    except Exception as exc:
        error = _explanation(exc, repo, revision, file)
        if error is None:
            raise
        raise error from exc


def _explanation(exc: Exception, repo: str, revision: str | None, file: str) -> LightX2VError | None:
    from huggingface_hub import errors

    what = f"{repo}/{file}" if file else repo
    if isinstance(exc, errors.OfflineModeIsEnabled):
        return RequestError(
            f"{what} was not asked for: HF_HUB_OFFLINE is set; unset it, or copy the files here"
        )
    if isinstance(exc, errors.HfHubHTTPError):
        return _refusal(exc, repo, revision, what)
    if isinstance(exc, errors.HFValidationError):
        return RequestError(f"{repo!r} is no repository: {exc}")
    if isinstance(exc, json.JSONDecodeError):
        return _no_hub(exc)
    if type(exc).__module__.partition(".")[0] in _NETWORK or isinstance(exc, ConnectionError | TimeoutError):
        return RunError(
            f"the connection to {endpoint()} failed for {what} ({_first_line(exc)}); {KEPT}\n"
            "  HF_ENDPOINT names a mirror, HF_HUB_DOWNLOAD_TIMEOUT the seconds to wait"
        )
    if isinstance(exc, ValueError | KeyError | TypeError | AssertionError) and not file:
        return _no_hub(exc)
    return None


def _no_hub(exc: Exception) -> RunError:
    return RunError(
        f"{endpoint()} does not answer like a hub ({_first_line(exc)}); is HF_ENDPOINT right, or a login page of the "
        "network in between?"
    )


def _refusal(exc: Any, repo: str, revision: str | None, what: str) -> LightX2VError:
    """An answer of the hub that is a refusal."""
    from huggingface_hub import errors

    status = getattr(exc.response, "status_code", None)
    login = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(exc, errors.GatedRepoError):
        return RequestError(
            f"{repo} is gated: accept its conditions at {endpoint()}/{repo}, then {login}, and give the same command"
        )
    if isinstance(exc, errors.RevisionNotFoundError):
        return RequestError(f"{repo} has no revision {revision!r}; leave --revision out for its newest state")
    if status == 401 and _has_token():
        return RequestError(f"{endpoint()} does not accept the token it was given for {what}: {login} anew")
    if isinstance(exc, errors.RepositoryNotFoundError) or status == 401:
        return RequestError(
            f"{endpoint()} has no repository {repo}, or it is private: check the name, or {login}"
        )
    if status == 403:
        return RequestError(f"{endpoint()} refuses {what} (403): the token has no right to read it; {login}")
    if status == 404:
        return RequestError(
            f"{what} is not there (404); was it moved since it was listed? Give the same command again"
        )
    if status == 429:
        return RunError(
            f"{endpoint()} asks for a pause (429) before {what}; {login} for more, or wait; {KEPT}"
        )
    if status is not None and status >= 500:
        return RunError(
            f"{endpoint()} answered {status} for {what}: it is in trouble; try again later; {KEPT}"
        )
    return RunError(f"{endpoint()} answered {status} for {what}: {_first_line(exc)}")


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _first_line(exc: Exception) -> str:
    """The first line of what an exception says, which never holds a signed address."""
    text = (str(exc).strip() or type(exc).__name__).splitlines()[0]
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1?...", text)
