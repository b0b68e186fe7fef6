"""Listings of hub repositories through ``huggingface_hub``, and error messages for its failures.

``huggingface_hub`` is imported at the first listing. Its environment variables apply: ``HF_ENDPOINT`` for mirrors,
``HF_TOKEN``, ``HF_HUB_OFFLINE``, timeouts.
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

#: folder of the records of downloads; files of repositories must not be written there
RECORDS = ".cache/huggingface"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
#: packages whose exceptions mean a failed connection; the version of huggingface_hub determines which are used
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "ssl", "socket")
KEPT = "downloaded data is kept; run the same command again to resume"


@frozen(kw_only=True)
class RemoteFile:
    """A file of a repository, with its size in bytes and expected hashes."""

    repo: str
    commit: str
    path: str
    size: int
    #: SHA-256 of the content; None for small files, which are stored in git itself
    sha256: str | None
    #: git's SHA-1 of the content, or of the LFS pointer of a file with a SHA-256
    blob: str

    @property
    def etag(self) -> str:
        """Return the identifier of its version, as in the records of huggingface_hub."""
        return self.sha256 or self.blob


@frozen(kw_only=True)
class Listing:
    """The files of a repository at one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]


def list_repository(repo: str, revision: str | None) -> Listing:
    """List the files of a repository at a branch, tag or commit.

    Raises the errors of ``failures``, and ``RequestError`` when a path in it could lead out of the target folder.
    """
    if not _REPO.fullmatch(repo):
        raise RequestError(f"{repo!r} is not a repository name; expected owner/name")
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
                f"{repo} has a file with an unsafe path {file.path!r}, {problem}; the repository is rejected"
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
    """Explain why a path of a listing is unsafe on any operating system; empty for a safe path."""
    if not path or any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "which has control characters" if path else "which is empty"
    parts = path.split("/")
    if path.startswith("/"):
        return "which is an absolute path"
    if "\\" in path or any(PureWindowsPath(part).drive for part in parts):
        return "which has a backslash or a Windows drive"
    if any(part in ("", ".", "..") for part in parts):
        return "which has empty parts, '.' or '..'"
    if any(len(part.encode()) > 255 for part in parts):
        return "which has a part of more than 255 bytes"
    if PurePosixPath(path.casefold()).is_relative_to(RECORDS):
        return f"which is in the folder of download records ({RECORDS})"
    return ""


def endpoint() -> str:
    """Return the address of the hub."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextmanager
def failures(repo: str, revision: str | None = None, file: str = "") -> Iterator[None]:
    """Convert exceptions from access to a repository into one error with a remedy.

    Raises:
        RequestError: the repository or file does not exist, or this user may not read it.
        RunError: the hub or the connection failed; the same command can resume later.
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
            f"cannot fetch {what}: HF_HUB_OFFLINE is set; unset it, or copy the files into the folder"
        )
    if isinstance(exc, errors.HfHubHTTPError):
        return _refusal(exc, repo, revision, what)
    if isinstance(exc, errors.HFValidationError):
        return RequestError(f"{repo!r} is not a repository name: {exc}")
    if isinstance(exc, json.JSONDecodeError):
        return _no_hub(exc)
    if type(exc).__module__.partition(".")[0] in _NETWORK or isinstance(exc, ConnectionError | TimeoutError):
        return RunError(
            f"connection to {endpoint()} failed for {what} ({_first_line(exc)}); {KEPT}\n"
            "  HF_ENDPOINT sets a mirror, HF_HUB_DOWNLOAD_TIMEOUT the timeout in seconds"
        )
    if isinstance(exc, ValueError | KeyError | TypeError | AssertionError) and not file:
        return _no_hub(exc)
    return None


def _no_hub(exc: Exception) -> RunError:
    return RunError(
        f"{endpoint()} does not respond like a hub ({_first_line(exc)}); check HF_ENDPOINT, and whether the network "
        "redirects to a login page"
    )


def _refusal(exc: Any, repo: str, revision: str | None, what: str) -> LightX2VError:
    """Return the error for an HTTP error status of the hub."""
    from huggingface_hub import errors

    status = getattr(exc.response, "status_code", None)
    login = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(exc, errors.GatedRepoError):
        return RequestError(
            f"{repo} is gated: accept its conditions at {endpoint()}/{repo}, {login}, and run the same command again"
        )
    if isinstance(exc, errors.RevisionNotFoundError):
        return RequestError(f"{repo} has no revision {revision!r}; omit --revision for the latest")
    if status == 401 and _has_token():
        return RequestError(f"{endpoint()} rejected the access token for {what}; to replace it, {login}")
    if isinstance(exc, errors.RepositoryNotFoundError) or status == 401:
        return RequestError(
            f"{endpoint()} has no repository {repo}, or it is private: check the name, or {login}"
        )
    if status == 403:
        return RequestError(
            f"{endpoint()} denied access to {what} (403): the token lacks read permission; {login}"
        )
    if status == 404:
        return RequestError(
            f"{what} not found (404); it may have moved since it was listed; run the same command again"
        )
    if status == 429:
        return RunError(
            f"{endpoint()} limits the rate of requests (429) for {what}; wait, or {login} for a higher limit; {KEPT}"
        )
    if status is not None and status >= 500:
        return RunError(f"{endpoint()} failed with HTTP status {status} for {what}; try again later; {KEPT}")
    return RunError(f"{endpoint()} returned HTTP status {status} for {what}: {_first_line(exc)}")


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _first_line(exc: Exception) -> str:
    """Return the first line of an exception's message, without the queries of addresses, which may be signed."""
    text = (str(exc).strip() or type(exc).__name__).splitlines()[0]
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1?...", text)
