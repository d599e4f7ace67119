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
from typing import Any, Final

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
_NO_GPU: Final = {"CUDA_VISIBLE_DEVICES": ""}


def interpreter(engine: str) -> Path:
    """Return the Python that runs `engine` unless another is given: `.venv-ENGINE` in this folder, else this one."""
    own = Path(f".venv-{engine}") / "bin" / "python"
    return own if own.is_file() else Path(sys.executable)


def run(engine: str, python: Path, job: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
    """Run `job` in `engine` and yield the messages of its worker as they come.

    When the caller closes the iterator, the process ends. Raises `RuntimeError` where the process fails; the message says
    what it said last.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [str(python), "-m", "steprule.lab.d2l.worker", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=_environment(python),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has died; its end tells why
                process.stdin.write(json.dumps(job))
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            for line in process.stdout:
                yield json.loads(line)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if code:
            errors.seek(0)
            raise RuntimeError(workers.ending(code, errors.read()))


def _environment(python: Path) -> dict[str, str]:
    found = workers.environment(THREADS) | _ONE_THREAD | _BACKENDS | _NO_GPU
    # Another interpreter has packages of its own, with which ours must not be mixed.
    if python == Path(sys.executable):
        found["PYTHONPATH"] = os.pathsep.join(workers.search_path())
    return found
