"""Compiled kernels on the disk: found again, made anew where damaged, done without where there is no folder."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numba
import pytest

from steprule import folders
from steprule.kernels import cache, coding, cpu_source, machine_code, native
from steprule.kernels.codecs import FUNCTIONS, STORAGES

SOURCE = '''"""A small module as `cpu.source` makes it."""

from numba import carray, cfunc

from steprule.kernels.native import float64_at


@cfunc("void(intp)")
def step(launch):
    number = carray(float64_at(launch), 1)
    number[0] = 3.0 * number[0] + 1.0
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))
    return tmp_path / "kernels"


def works(address: int) -> bool:
    number = ctypes.c_double(2.0)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(number))
    return number.value == 7.0


def kept(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def no_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, source: str, function: str) -> None:
        raise AssertionError(f"{name} is compiled anew")

    monkeypatch.setattr(cache, "_compiled", refuse)


def test_what_was_compiled_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert works(cache.compiled("small", SOURCE))
    path = kept(folder)
    assert path.name.startswith("small_")
    before = path.read_bytes()
    no_compiling(monkeypatch)
    assert works(cache.compiled("small", SOURCE))
    assert kept(folder) == path
    assert path.read_bytes() == before


def test_each_function_of_a_source_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    two = SOURCE + SOURCE[SOURCE.index("@cfunc") :].replace("def step", "def other").replace("3.0", "2.0")
    first, second = cache.compiled("two", two), cache.compiled("two", two, "other")
    assert works(first) and not works(second)
    no_compiling(monkeypatch)
    assert works(cache.compiled("two", two)) and not works(cache.compiled("two", two, "other"))


def test_another_machine_compiles_for_itself(folder: Path, monkeypatch: pytest.MonkeyPatch):
    cache.compiled("small", SOURCE)
    monkeypatch.setattr(machine_code, "host", lambda: "a processor that can do more")
    assert works(cache.compiled("small", SOURCE))
    assert len(list(folder.glob("small_*"))) == 2


@pytest.fixture
def untold_features(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As LLVM 14 on a Mac with Apple's processor, whose features it cannot tell."""

    def refuse() -> None:
        raise RuntimeError("failed to get host cpu features")

    monkeypatch.setattr(machine_code.llvm, "get_host_cpu_features", refuse)
    for each in (machine_code._features, machine_code.host):
        each.cache_clear()
    yield
    for each in (machine_code._features, machine_code.host):
        each.cache_clear()


@pytest.mark.usefixtures("untold_features")
def test_a_system_that_does_not_tell_what_its_processor_can_do_keeps_kernels_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    assert works(cache.compiled("small", SOURCE))
    no_compiling(monkeypatch)
    assert works(cache.compiled("small", SOURCE))
    assert kept(folder).name.startswith("small_")


def test_machine_code_that_lacks_a_function_is_made_anew_and_told_of(folder: Path, monkeypatch: pytest.MonkeyPatch):
    cache.compiled("small", SOURCE)
    path = kept(folder)
    found = cache._read(path)
    assert found is not None
    cache._write(path, replace(found, needs=(*found.needs, "a_function_that_there_is_not")))
    with pytest.raises(OSError, match="there is no function a_function_that_there_is_not"):
        machine_code.loaded(cache._read(path))
    with pytest.warns(RuntimeWarning, match="kernel of small .* cannot be used here .*a_function_that_there_is_not"):
        address = cache.compiled("small", SOURCE)
    assert works(address)
    assert cache._read(path) == found


def test_every_name_that_a_kernel_may_call_is_there():
    assert set(cpu_source._NATIVE) <= set(native.__all__)
    assert set(FUNCTIONS) == {name for name, each in vars(coding).items() if isinstance(each, type(coding.noise))}
    assert set(FUNCTIONS) == set(coding.__all__)
    assert {name for each in STORAGES.values() for name in (each.decode, each.encode)} <= set(coding.__all__)


def test_other_sources_are_other_files(folder: Path):
    cache.compiled("small", SOURCE)
    cache.compiled("small", SOURCE.replace("1.0", "8.0"))
    assert len(list(folder.glob("small_*"))) == 2


def test_no_other_user_can_write_there(folder: Path):
    cache.compiled("small", SOURCE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_left_beside_the_files(folder: Path):
    cache.compiled("small", SOURCE)
    assert kept(folder).suffix == ".o"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def scribbled(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def a_bit_turned(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [truncated, emptied, scribbled, zeroed, a_bit_turned, Path.unlink])
def test_a_damaged_file_is_made_anew_without_a_word(
    folder: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
):
    cache.compiled("small", SOURCE)
    path = kept(folder)
    before = path.read_bytes()
    damage(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works(cache.compiled("small", SOURCE))
    # And it is kept again.
    assert kept(folder).read_bytes() == before
    no_compiling(monkeypatch)
    assert works(cache.compiled("small", SOURCE))


def test_a_folder_in_the_place_of_a_file_costs_only_time(folder: Path):
    cache.compiled("small", SOURCE)
    a_folder(kept(folder))
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        assert works(cache.compiled("small", SOURCE))
    assert kept(folder).is_dir()  # and nothing beside it


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


def test_a_file_that_is_called_as_the_rule_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    # Such as lion.py, the script that defines the rule lion and trains by it.
    folder.mkdir()
    (folder / "lion_of_ours.py").write_text("raise AssertionError('run a second time')")
    monkeypatch.syspath_prepend(folder)
    assert works(cache.compiled("lion_of_ours", SOURCE))


def test_users_that_debug_functions_of_their_own_have_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    helper = "from numba import njit\n\n\n@njit\ndef tripled(v):\n    return 3.0 * v\n\n\n@cfunc"
    source = SOURCE.replace("@cfunc", helper).replace("3.0 * number[0]", "tripled(number[0])")
    assert works(cache.compiled("small", source))
    assert numba.config.DISABLE_JIT == 1


def test_a_source_that_does_not_compile_is_no_fault_of_the_folder(folder: Path):
    broken = SOURCE.replace("number[0] = ", "number[0] = unheard_of + ")
    # A warning is an error here, as in all tests.
    with pytest.raises(numba.core.errors.NumbaError):
        cache.compiled("small", broken)


def run(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
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
print("numba" in sys.modules, arrays[0].tolist())
"""


def test_a_second_process_does_not_even_load_numba(folder: Path):
    first, second = (run(_STEP, dict(os.environ)).split(maxsplit=1) for _ in range(2))
    assert (first[0], second[0]) == ("True", "False")
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
    assert run(_STEP, dict(os.environ)).startswith("False ")


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
