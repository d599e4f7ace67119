"""The data sets as published, and what is said where an extra is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.lab.data.toy import Server, files_under
from tests.requirements import require_data_set, require_installed

from steprule.lab.data import DATA_SETS, airfoil, digits, locate, mnist


@pytest.fixture
def need_mnist() -> None:
    require_data_set("mnist")


@pytest.fixture
def need_airfoil() -> None:
    require_data_set("airfoil")


@pytest.fixture
def need_a9a() -> None:
    require_data_set("a9a")


def test_mnist_is_the_published_one(need_mnist: None) -> None:
    data = mnist()
    assert data.train_images.shape == (60_000, 28, 28) and data.test_images.shape == (10_000, 28, 28)
    assert data.train_labels.shape == (60_000,) and data.test_labels.shape == (10_000,)
    assert {array.dtype for array in data} == {np.dtype(np.uint8)}
    assert data.train_labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert data.test_labels[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    assert np.bincount(data.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # The mean pixel and its standard deviation with which MNIST is usually normalised.
    assert round(data.train_images.mean() / 255, 4) == 0.1307
    assert round(data.train_images.std() / 255, 4) == 0.3081


def test_airfoil_is_the_published_one(need_airfoil: None) -> None:
    table = airfoil()
    assert table.shape == (1503, 6) and table.dtype == np.float64
    assert table[0].tolist() == [800, 0, 0.3048, 71.3, 0.00266337, 126.201]
    assert table[-1].tolist() == [6300, 15.6, 0.1016, 39.6, 0.0528487, 104.204]
    assert table.min(axis=0).tolist() == [200, 0, 0.0254, 31.7, 0.000400682, 103.38]
    assert table.max(axis=0).tolist() == [20000, 22.2, 0.3048, 71.3, 0.0584113, 140.987]


def test_a9a_is_the_published_one(need_a9a: None) -> None:
    paths = locate("a9a")
    assert paths["a9a"].read_bytes().count(b"\n") == 32_561
    assert paths["a9a.t"].read_bytes().count(b"\n") == 16_281


def test_the_registry_gives_the_size_of_the_real_files(need_mnist: None, need_airfoil: None, need_a9a: None) -> None:
    for data in DATA_SETS.values():
        paths = locate(data.name)
        assert {file.name: file.size for file in data.files} == {name: p.stat().st_size for name, p in paths.items()}


def test_the_real_airfoil_comes_through_the_downloader(
    need_airfoil: None, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = airfoil()
    body = locate("airfoil")["airfoil_self_noise.dat"].read_bytes()
    (file,) = DATA_SETS["airfoil"].files
    local = replace(file, urls=(f"{server.address}/{file.name}",))
    monkeypatch.setitem(DATA_SETS, "airfoil", replace(DATA_SETS["airfoil"], files=(local,)))
    monkeypatch.delenv("STEPRULE_DATA")
    monkeypatch.setenv("STEPRULE_CACHE", str(tmp_path))
    server.bodies[f"/{file.name}"] = body
    np.testing.assert_array_equal(airfoil(), original)
    assert files_under(tmp_path) == ["data/airfoil/airfoil_self_noise.dat"]


def test_digits_need_no_file(tmp_path: Path) -> None:
    require_installed("sklearn")
    data = digits()
    assert data.images.shape == (1797, 64) and data.images.dtype == np.float64
    assert data.labels.shape == (1797,) and data.labels.dtype == np.int64
    assert data.images.min() == 0 and data.images.max() == 16
    assert np.bincount(data.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert locate("digits") == {}
    assert files_under(tmp_path) == []


def test_missing_digits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs scikit-learn: pip install 'steprule\[lab\]'"):
        digits()


def test_importing_loads_no_framework_and_no_extra() -> None:
    heavy = ("torch", "jax", "sklearn", "pooch", "rich", "requests", "platformdirs")
    program = f"import sys, steprule.lab.data; print([name for name in {heavy} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert output.stdout.decode().strip() == "[]"
