"""Where the files of a data set are looked for, and that a wrong one is never used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest
from tests.lab.data.toy import CONTENT, Server, files_under, put_toy, register_toy
from tests.requirements import require_installed

from steprule.folders import cache_folder
from steprule.lab.data import DATA_SETS, DataError, DataSet, locate, mnist, overview

pytestmark = pytest.mark.usefixtures("folders")


@pytest.mark.parametrize("data", DATA_SETS.values(), ids=lambda data: data.name)
def test_every_data_set_is_described(data: DataSet) -> None:
    assert data.title and data.licence and "https://doi.org/" in data.source
    for file in data.files:
        assert file.path == f"{data.name}/{file.name}"
        assert len(file.sha256) == 64 and int(file.sha256, 16) and file.sha256 == file.sha256.lower()
        assert file.urls and all(url.startswith(("http://", "https://")) for url in file.urls)
        # What is checked by its members may have another name at its host.
        assert file.members or all(url.endswith(f"/{file.name}") for url in file.urls)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no data set 'cifar'; there are mnist, airfoil, a9a, fsdd, digits"):
        locate("cifar")


def test_the_given_folder_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)
    cached = put_toy(tmp_path / "cache" / "data", CONTENT)
    assert locate("toy") == {"toy.bin": cached}
    given_path = put_toy(tmp_path / "given", CONTENT)
    monkeypatch.setenv("STEPRULE_DATA", str(tmp_path / "given"))
    assert locate("toy") == {"toy.bin": given_path}


def test_what_the_given_folder_lacks_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)
    cached = put_toy(tmp_path / "cache" / "data", CONTENT)
    monkeypatch.setenv("STEPRULE_DATA", str(tmp_path))
    assert locate("toy") == {"toy.bin": cached}


def test_a_wrong_given_file_is_an_error_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    file = register_toy(monkeypatch, f"{server.address}/toy")
    server.bodies["/toy"] = CONTENT
    path = put_toy(tmp_path, b"another")
    monkeypatch.setenv("STEPRULE_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        locate("toy")
    for part in (str(path), file.sha256, hashlib.sha256(b"another").hexdigest()):
        assert part in str(caught.value)
    assert path.read_bytes() == b"another"
    assert server.asked == []


def test_a_wrong_cached_file_is_an_error_until_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    register_toy(monkeypatch, f"{server.address}/toy")
    server.bodies["/toy"] = CONTENT
    path = put_toy(tmp_path / "cache" / "data", CONTENT[:-1])
    with pytest.raises(DataError, match="once deleted it is downloaded again"):
        locate("toy")
    assert server.asked == []
    path.unlink()
    assert locate("toy")["toy.bin"].read_bytes() == CONTENT


def test_a_file_that_changes_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)
    path = put_toy(tmp_path / "cache" / "data", CONTENT)
    locate("toy")
    path.write_bytes(CONTENT + b"x")
    with pytest.raises(DataError, match="SHA-256"):
        locate("toy")


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)
    put_toy(tmp_path / "cache" / "data", CONTENT)
    opened: list[Path] = []
    original = Path.open

    def counted(path: Path, *arguments: object, **options: object) -> object:
        opened.append(path)
        return original(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", counted)
    locate("toy")
    locate("toy")
    assert len(opened) == 1


def test_a_folder_in_the_place_of_a_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)
    (tmp_path / "toy" / "toy.bin").mkdir(parents=True)
    monkeypatch.setenv("STEPRULE_DATA", str(tmp_path))
    with pytest.raises(DataError, match="is not a file"):
        locate("toy")


@pytest.mark.parametrize("use", [lambda: locate("mnist"), overview, mnist])
def test_a_given_folder_that_is_none_is_an_error(
    use: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPRULE_DATA", str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"\$STEPRULE_DATA is .*absent.*not a folder"):
        use()


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    assert not cache_folder().exists()
    usual = platformdirs.user_cache_path("steprule")
    monkeypatch.setenv("STEPRULE_CACHE", "")
    assert cache_folder() == usual
    monkeypatch.delenv("STEPRULE_CACHE")
    assert cache_folder() == usual
    monkeypatch.setenv("STEPRULE_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def _place_told(name: str = "toy") -> str:
    return next(each.place for each in overview() if each.name == name)


def test_the_overview_tells_where_data_are_and_fetches_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_installed("sklearn")
    register_toy(monkeypatch, f"{server.address}/data/toy.bin")
    records = overview()
    assert [each.name for each in records] == ["mnist", "airfoil", "a9a", "fsdd", "digits", "toy"]
    assert _place_told("digits") == "in scikit-learn"
    assert _place_told("mnist") == "not here yet; comes from https://ossci-datasets.s3.amazonaws.com/mnist/ (11.6 MB)"
    assert _place_told() == f"not here yet; comes from {server.address}/data/ (0.1 MB)"
    assert server.asked == [] and files_under(tmp_path) == []

    path = put_toy(tmp_path / "cache" / "data", CONTENT)
    assert _place_told() == str(path.parent)


def test_the_overview_tells_of_a_wrong_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)
    path = put_toy(tmp_path / "cache" / "data", b"another")
    assert _place_told().startswith(f"{path} has the SHA-256 ")


def test_the_overview_tells_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = register_toy(monkeypatch, "http://127.0.0.1/toy.bin")
    second = replace(first, path="toy/more.bin", size=2_000_000, urls=("http://127.0.0.1/more.bin",))
    monkeypatch.setitem(DATA_SETS, "toy", replace(DATA_SETS["toy"], files=(first, second)))
    path = put_toy(tmp_path / "cache" / "data", CONTENT)
    assert _place_told() == (
        f"1 of 2 files not here yet ({path.parent} has the others); comes from http://127.0.0.1/ (2.0 MB)"
    )
