"""Compiled kernels on the disk: found again, made anew where damaged, done without where there is no folder."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numba
import pytest

from steprule import folders
from steprule.kernels import cache

SOURCE = '''"""A small module as `cpu.source` makes it."""

from numba import carray, cfunc

from steprule.kernels.native import float64_at


@cfunc("void(intp)", cache=CACHE)
def step(launch):
    number = carray(float64_at(launch), 1)
    number[0] = 3.0 * number[0] + 1.0
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    return tmp_path / "kernels"


def works(address: int) -> bool:
    number = ctypes.c_double(2.0)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(number))
    return number.value == 7.0


def hits(path: Path) -> int:
    """Return how often the module of the file at `path` found its function compiled when it was last loaded."""
    return sys.modules[f"steprule_{path.stem}"].step.cache_hits


def source_file(folder: Path) -> Path:
    (path,) = folder.glob("*.py")
    return path


def compiled_files(folder: Path) -> set[str]:
    return {path.suffix for path in (folder / "__pycache__").iterdir()} & {".nbi", ".nbc"}


def test_what_was_compiled_is_found_again(folder: Path):
    assert works(cache.compiled("small", SOURCE))
    path = source_file(folder)
    assert path.name.startswith("small_")
    assert path.read_text(encoding="utf-8") == SOURCE
    assert hits(path) == 0
    assert compiled_files(folder) == {".nbi", ".nbc"}
    assert works(cache.compiled("small", SOURCE))
    assert hits(path) == 1


def test_other_sources_are_other_files(folder: Path):
    cache.compiled("small", SOURCE)
    cache.compiled("small", SOURCE.replace("7.0", "8.0") + "\n")
    assert len(list(folder.glob("small_*.py"))) == 2


def test_no_other_user_can_write_there(folder: Path):
    cache.compiled("small", SOURCE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_left_beside_the_files(folder: Path):
    cache.compiled("small", SOURCE)
    assert {path.name for path in folder.iterdir()} == {source_file(folder).name, "__pycache__"}


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def scribbled(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncated, emptied, scribbled, zeroed])
@pytest.mark.parametrize("suffix", [".py", ".nbi", ".nbc"])
def test_a_damaged_file_is_made_anew_without_a_word(folder: Path, suffix: str, damage: Callable[[Path], None]):
    cache.compiled("small", SOURCE)
    (victim,) = [path for path in folder.rglob("*") if path.suffix == suffix]
    damage(victim)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works(cache.compiled("small", SOURCE))
    # And it is kept again.
    assert works(cache.compiled("small", SOURCE))
    assert hits(source_file(folder)) == 1
    assert source_file(folder).read_text(encoding="utf-8") == SOURCE


@pytest.mark.parametrize("suffix", [".py", ".nbi", ".nbc"])
def test_a_missing_file_is_made_anew(folder: Path, suffix: str):
    cache.compiled("small", SOURCE)
    for path in [path for path in folder.rglob("*") if path.suffix == suffix]:
        path.unlink()
    assert works(cache.compiled("small", SOURCE))


def test_what_another_source_has_left_under_the_name_is_not_run(folder: Path):
    cache.compiled("small", SOURCE)
    path = source_file(folder)
    path.write_text("raise SystemExit('somebody else was here')", encoding="utf-8")
    assert works(cache.compiled("small", SOURCE))


def test_a_folder_that_cannot_be_is_told_of_once_and_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(
        RuntimeWarning, match="the kernel of small cannot be kept in .*STEPRULE_CACHE can name another"
    ) as told:
        address = cache.compiled("small", SOURCE)
    assert len(told) == 1
    assert works(address)


def test_a_file_in_the_place_of_the_folder_costs_only_time(folder: Path):
    folder.write_text("", encoding="utf-8")
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        assert works(cache.compiled("small", SOURCE))
    assert folder.read_text(encoding="utf-8") == ""


def test_a_source_that_does_not_compile_is_no_fault_of_the_folder(folder: Path):
    broken = SOURCE.replace("number[0] = ", "number[0] = unheard_of + ")
    # A warning is an error here, as in all tests.
    with pytest.raises(numba.core.errors.NumbaError):
        cache.compiled("small", broken)


def test_numbas_own_cache_folder_serves_too(folder: Path, tmp_path: Path):
    code = (
        "import sys; from steprule import rules; from steprule.program import lower; from steprule.kernels import cpu;"
        "cpu.kernel(lower(rules.sgd), 'float64');"
        "print(*[m.step.cache_hits for n, m in sys.modules.items() if n.startswith('steprule_sgd')])"
    )
    where = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    assert [run(code, where) for _ in range(2)] == ["0", "1"]
    for path in (tmp_path / "numba").rglob("*.nbc"):
        path.write_bytes(b"damaged")
    # Numba's folder is not ours to clean: the kernel is compiled anew, and said to be.
    assert run(code, where, allow_warnings=True) in ("", "0")


def run(code: str, environment: dict[str, str], *, allow_warnings: bool = False) -> str:
    options = [] if allow_warnings else ["-W", "error::RuntimeWarning"]
    done = subprocess.run([sys.executable, *options, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_STEP = """
import sys
import numpy as np
from steprule import around, rules
from steprule.kernels import cpu
from steprule.program import lower

program = lower(rules.adadelta)
arrays = [np.full(3, 2.0) for _ in program.arrays]
table = cpu.Table(np.array([[array.ctypes.data for array in arrays]]), [3])
scalars = np.array([program.fold(t=1, **around.validated(rules.adadelta, {}))])
cpu.launch(cpu.kernel(program, "float64"), table, scalars, threads=1)
(module,) = [module for name, module in sys.modules.items() if name.startswith("steprule_adadelta")]
print(module.step.cache_hits, arrays[0].tolist())
"""


def test_a_second_process_does_not_compile(folder: Path):
    first, second = (run(_STEP, dict(os.environ)).split(maxsplit=1) for _ in range(2))
    assert (first[0], second[0]) == ("0", "1")
    assert first[1] == second[1]


def test_processes_that_meet_in_an_empty_folder_all_succeed(folder: Path):
    together = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _STEP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    results = [each.communicate(timeout=120) for each in together]
    assert [each.returncode for each in together] == [0, 0, 0], results
    assert len({out.split(maxsplit=1)[1] for out, _ in results}) == 1
    assert run(_STEP, dict(os.environ)).startswith("1 ")


def test_the_folder_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path / "not there yet"))
    assert folders.cache_folder() == tmp_path / "not there yet"
    assert not folders.cache_folder().exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STEPRULE_CACHE", "~/kept")
    assert folders.cache_folder() == tmp_path / "kept"


def test_without_a_name_it_is_the_systems(monkeypatch: pytest.MonkeyPatch):
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("STEPRULE_CACHE")
        else:
            monkeypatch.setenv("STEPRULE_CACHE", value)
        assert folders.cache_folder().name == "steprule"
        assert folders.cache_folder().is_absolute()
