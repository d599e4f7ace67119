"""The user's own files, for a machine that does not have them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steprule.lab.sources import Sources

LOADS = """
import pickle, sys
from steprule import named
sources = pickle.loads(bytes.fromhex(sys.argv[1]))
name = sources.unpacked()
print(name, named.load(name)(), sep="|")
"""


def loaded_elsewhere(sources: Sources, folder: Path) -> tuple[str, str]:
    import pickle

    folder.mkdir()
    command = [sys.executable, "-c", LOADS, pickle.dumps(sources).hex()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    name, _, value = done.stdout.strip().partition("|")
    return name, value


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    (folder / "parts").mkdir(parents=True)
    (folder / "mine.py").write_text(
        "import beside\nfrom parts import inner\n\ndef value():\n    return beside.A + inner.B\n"
    )
    (folder / "beside.py").write_text("A = 40\n")
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "inner.py").write_text("B = 2\n\ndef alone():\n    return B\n")
    (folder / "notes.txt").write_text("not code")
    return folder


def test_a_file_goes_with_its_neighbours(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = Sources.of(f"{own / 'mine.py'}:value")
    assert set(sources.files) == {"mine.py", "beside.py", "parts/__init__.py", "parts/inner.py"}
    shutil.rmtree(own)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    name, value = loaded_elsewhere(sources, tmp_path / "elsewhere")
    assert value == "42"
    assert Path(name.partition(":")[0]).parent.parent == tmp_path


def test_files_that_are_there_are_used_where_they_are(own: Path, tmp_path: Path) -> None:
    sources = Sources.of(f"{own / 'mine.py'}:value")
    assert loaded_elsewhere(sources, tmp_path / "elsewhere") == (f"{own / 'mine.py'}:value", "42")


def test_a_file_of_another_text_is_not_mistaken(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = Sources.of(f"{own / 'mine.py'}:value")
    (own / "beside.py").write_text("A = 0\n")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert loaded_elsewhere(sources, tmp_path / "elsewhere")[1] == "42"


def test_a_package_goes_by_its_name(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(own))
    sources = Sources.of("parts.inner:alone")
    assert set(sources.files) == {"parts/__init__.py", "parts/inner.py"}
    shutil.rmtree(own)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert loaded_elsewhere(sources, tmp_path / "elsewhere") == ("parts.inner:alone", "2")


@pytest.mark.parametrize("name", ["mnist", "sgd", "steprule.lab.zeiler2012.problems:tanh", "json:dumps", "numpy:sin"])
def test_what_is_installed_stays(name: str) -> None:
    assert Sources.of(name) == Sources(name, "", {})
