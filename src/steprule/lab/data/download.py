"""Bring one file from its public addresses, through pooch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ...folders import written_aside
from .archives import sha256
from .registry import DataError, DataFile

__all__ = ["download"]

_SECONDS_OF_SILENCE = 30


def download(file: DataFile, path: Path) -> None:
    """Bring `file` to `path` from the first of its addresses that delivers it whole.

    It is written beside `path` under a temporary name, checked against its SHA-256, and only then renamed, so that
    `path` is either absent or right. A transfer that breaks off is not resumed: what came is deleted, and the next
    address, or the next call, begins at the first byte. A process that is killed outright leaves its temporary file
    behind, which nothing reads. Progress is drawn on standard error where that is a terminal.

    Raises:
        DataError: no address delivered the file (each is named with its cause), or `path` cannot be written.
        ModuleNotFoundError: pooch or rich is not installed.
    """
    failures = []
    for url in file.urls:
        try:
            failure = _retrieve(file, url, path)
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            message = f"downloading {file.path} needs {package}: pip install 'steprule[lab]'"
            raise ModuleNotFoundError(message, name=error.name) from error
        except OSError as error:
            raise DataError(f"{path} cannot be written ({error}); $STEPRULE_CACHE may name another folder") from error
        if failure is None:
            return
        failures.append(f"{url} ({failure})")
    raise DataError(
        f"{file.path} could not be downloaded from {', '.join(failures)}; a copy at {file.path} in the folder that "
        "$STEPRULE_DATA names is used instead"
    )


def _retrieve(file: DataFile, url: str, path: Path) -> str | None:
    """Bring `file` from one address; where that fails, return why."""
    import pooch
    import requests

    from .progress import progress_bar

    outer = sys.exc_info()[1]
    try:
        with progress_bar(file.name, file.size) as bar:
            fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=_SECONDS_OF_SILENCE)
            if file.members:
                _retrieve_archive(file, url, path, fetch)
            else:
                pooch.retrieve(url, f"sha256:{file.sha256}", path.name, path.parent, downloader=fetch)
    except (requests.RequestException, ValueError) as error:
        return _cause(error, outer)
    return None


def _retrieve_archive(file: DataFile, url: str, path: Path, fetch: Any) -> None:
    """Bring an archive beside its place and rename it once what it holds is right, which pooch cannot check."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        fetch(url, str(aside), None)
        found = sha256(aside, file.members)
        if found != file.sha256:
            raise DataError(f"its {file.members} files have the SHA-256 {found} and not {file.sha256}")


def _cause(error: BaseException, outer: BaseException | None) -> str:
    """The innermost reason in one phrase: the layers around it repeat the address and name their own objects.

    `outer` is what the caller was handling when the download began; it is no reason of the failure.
    """
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}"
    while error.__context__ is not None and error.__context__ is not outer:
        error = error.__context__
    # pooch's message on a wrong checksum goes on with advice.
    return str(error).partition(". ")[0] or type(error).__name__
