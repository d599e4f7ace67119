"""Archives that a host packs anew: what counts is what they hold."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lab.data.toy import Server, files_under, register_toy

from steprule.lab.data import DATA_SETS, DataError, DataSet, locate
from steprule.lab.data.archives import members, sha256

FILES = {"b.wav": b"second", "a.wav": b"first", "README.md": b"no sound"}


def tar(path: Path, files: dict[str, bytes], folder: str = "toy") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            told = tarfile.TarInfo(f"{folder}/{name}")
            told.size = len(content)
            archive.addfile(told, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes], folder: str = "toy-1.0/x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(f"{folder}/{name}", content)
    return path


def test_a_zip_and_a_tar_of_the_same_files_are_the_same(tmp_path: Path) -> None:
    one, other = zipped(tmp_path / "a", FILES), tar(tmp_path / "b", FILES)
    assert members(one, ".wav") == members(other, ".wav") == {"a.wav": b"first", "b.wav": b"second"}
    assert list(members(one, ".wav")) == ["a.wav", "b.wav"]
    # As `sha256sum *.wav | sha256sum` says.
    lines = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in ("a.wav", "b.wav"))
    assert sha256(one, ".wav") == sha256(other, ".wav") == hashlib.sha256(lines.encode()).hexdigest()
    assert sha256(one) == hashlib.sha256(one.read_bytes()).hexdigest()
    changed = tar(tmp_path / "c", FILES | {"a.wav": b"fist"})
    assert sha256(changed, ".wav") != sha256(one, ".wav")


@pytest.mark.parametrize("pack", [zipped, tar])
def test_a_truncated_archive_is_refused_with_its_name(pack: object, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.pack", {f"{n}.wav": bytes(range(256)) for n in range(40)})  # type: ignore[operator]
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(DataError, match=r"a\.pack is no sound zip or tar archive"):
        members(path, ".wav")


def test_what_is_no_archive_and_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"neither")
    with pytest.raises(DataError, match="is no sound zip or tar archive"):
        members(tmp_path / "a", ".wav")
    with zipfile.ZipFile(tmp_path / "b", "w") as archive:
        archive.writestr("x/a.wav", b"1")
        archive.writestr("y/a.wav", b"2")
    with pytest.raises(DataError, match="has two files of one name"):
        members(tmp_path / "b", ".wav")


def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    file = register_toy(monkeypatch, url)
    digest = sha256(tar(tmp_path / "reference", FILES), ".wav")
    packed = replace(file, sha256=digest, members=".wav", also=("toy/other.tar.gz",))
    monkeypatch.setitem(DATA_SETS, "toy", DataSet("toy", "A toy", "CC0", "made here", (packed,)))


@pytest.mark.usefixtures("folders")
def test_the_given_folder_may_have_it_in_another_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, tmp_path, "http://127.0.0.1/toy")
    (tmp_path / "given" / "toy").mkdir(parents=True)
    monkeypatch.setenv("STEPRULE_DATA", str(tmp_path / "given"))
    path = tar(tmp_path / "given" / "toy" / "other.tar.gz", FILES)
    assert locate("toy") == {"toy.bin": path}
    tar(path, FILES | {"a.wav": b"another"})
    with pytest.raises(DataError, match=r"other.tar.gz has the SHA-256 of its .wav files "):
        locate("toy")


@pytest.mark.usefixtures("folders")
def test_a_download_is_checked_by_what_it_holds(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, tmp_path, f"{server.address}/toy")
    server.bodies["/toy"] = zipped(tmp_path / "wrong", FILES | {"b.wav": b"another"}).read_bytes()
    with pytest.raises(DataError, match=r"toy/toy.bin could not be downloaded .*its .wav files have the SHA-256"):
        locate("toy")
    assert not files_under(tmp_path / "cache")
    server.bodies["/toy"] = zipped(tmp_path / "right", FILES).read_bytes()
    assert members(locate("toy")["toy.bin"], ".wav")["a.wav"] == b"first"
    assert files_under(tmp_path / "cache") == ["data/toy/toy.bin"]
