"""Each engine in a process of its own, one after another, in one thread: frameworks share neither, and the clock runs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from .. import workers

__all__ = ["THREADS", "interpreter", "run"]

THREADS: Final = 1

_ONE_THREAD: Final = {
    "MXNET_CPU_WORKER_NTHREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
_BACKENDS: Final = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "JAX_PLATFORMS": "cpu"}
_SHOWN: Final = 60  # characters of a line that is no message
_NO_GPU: Final = {"CUDA_VISIBLE_DEVICES": ""}


def interpreter(engine: str) -> Path:
    """Return the Python that runs `engine` unless another is given: `.venv-ENGINE` in this folder, else this one."""
    own = Path(f".venv-{engine}") / "bin" / "python"
    return own if own.is_file() else Path(sys.executable)


def run(engine: str, python: Path, job: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
    """Run `job` in `engine` and yield the messages of its worker as they come.

    When the caller closes the iterator, the process ends. Raises `RuntimeError` where `python` cannot be started, where it
    writes what is no message, and where the process fails; then the error says what it said last.
    """
    with tempfile.TemporaryFile() as errors:
        process = _started(engine, python, errors)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has died; its end tells why
                process.stdin.write(json.dumps(job))
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            for line in process.stdout:
                yield _message(python, line)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if code:
            errors.seek(0)
            raise RuntimeError(workers.ending(code, errors.read()))


def _started(engine: str, python: Path, errors: IO[bytes]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            [str(python), "-m", "steprule.lab.d2l.worker", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",  # what is no UTF-8 is no message either
            env=_environment(python),
        )
    except OSError as error:
        raise RuntimeError(f"{python} cannot be started: {error.strerror}") from error


def _message(python: Path, line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        said = line.strip()[:_SHOWN]
        raise RuntimeError(f"{python} wrote {said!r}; allowed is a Python, which writes what it has trained as JSON")
    return message


def _environment(python: Path) -> dict[str, str]:
    found = workers.environment(THREADS) | _ONE_THREAD | _BACKENDS | _NO_GPU
    # Another interpreter has packages of its own, with which ours must not be mixed.
    if python == Path(sys.executable):
        found["PYTHONPATH"] = os.pathsep.join(workers.search_path())
    return found
