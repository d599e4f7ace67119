"""A data set of one small file, and a local server that delivers it well or badly."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from steprule.lab.data import DATA_SETS, DataFile, DataSet

__all__ = ["CONTENT", "Server", "files_under", "put_toy", "register_toy", "serve"]

CONTENT = bytes(range(256)) * 400


def register_toy(monkeypatch: pytest.MonkeyPatch, *urls: str, content: bytes = CONTENT) -> DataFile:
    """Add the data set "toy" to the registry for the running test: one file with that content at those addresses."""
    file = DataFile("toy/toy.bin", len(content), hashlib.sha256(content).hexdigest(), urls)
    monkeypatch.setitem(DATA_SETS, "toy", DataSet("toy", "A toy", "CC0", "made here", (file,)))
    return file


def put_toy(folder: Path, content: bytes) -> Path:
    """Write a file in the toy's place in a data folder."""
    path = folder / "toy" / "toy.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files_under(folder: Path) -> list[str]:
    """The paths of all files in a folder, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@dataclass
class Server:
    """What a local server answers, by path: the bytes that it sends, and the length that it announces if not theirs.

    On a path in `held` it sends its bytes and then keeps the connection open until the event.
    """

    address: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    held: dict[str, threading.Event] = field(default_factory=dict)


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server on this machine; what it answers can be changed while it runs."""
    answers = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append(self.path)
            if self.path not in answers.bodies:
                self.send_error(404)
                return
            body = answers.bodies[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(answers.lengths.get(self.path, len(body))))
            self.end_headers()
            self.wfile.write(body)
            if self.path in answers.held:
                self.wfile.flush()
                answers.held[self.path].wait(timeout=60)

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep the test's output clean."""

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.address = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield answers
    finally:
        for event in answers.held.values():
            event.set()
        listener.shutdown()
        listener.server_close()
        thread.join()
