"""What each data set is: its licence, its source, and the size, checksum and public addresses of its files."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DATA_SETS", "DataError", "DataFile", "DataSet", "data_set"]


class DataError(ValueError):
    """A data file is missing, cannot be fetched, or does not hold what it should."""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    `path` is relative to a data folder and written with "/"; `size` is in bytes; `sha256` is 64 lower-case hexadecimal
    digits; `urls` are the public addresses in the order in which they are tried.

    A host may pack an archive anew at any time. Where `members` is a name's ending, `sha256` is that of the archive's files
    with this ending (`archives.sha256`), `size` is about that of the archive, and `also` are other paths at which
    the same files may lie, in a zip or tar archive.
    """

    path: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    members: str = ""
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """A data set. One without files is embedded in scikit-learn."""

    name: str
    title: str
    licence: str
    source: str
    files: tuple[DataFile, ...] = ()


def data_set(name: str) -> DataSet:
    """The data set of that name.

    Raises:
        DataError: there is none.
    """
    if name not in DATA_SETS:
        raise DataError(f"there is no data set {name!r}; there are {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def _mnist(name: str, size: int, sha256: str) -> DataFile:
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
    return DataFile(f"mnist/{name}", size, sha256, tuple(mirror + name for mirror in mirrors))


def _a9a(name: str, size: int, sha256: str) -> DataFile:
    mirror = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
    return DataFile(f"a9a/{name}", size, sha256, (mirror + name,))


_MNIST = DataSet(
    name="mnist",
    title="MNIST: 60,000 + 10,000 handwritten digits of 28 x 28 pixels",
    licence="CC BY-SA 3.0",
    source="LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document recognition, "
    "https://doi.org/10.1109/5.726791",
    files=(
        _mnist(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        _mnist(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        _mnist(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        _mnist(
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
)

_AIRFOIL = DataSet(
    name="airfoil",
    title="Airfoil self-noise: 1,503 wind-tunnel measurements of 5 inputs and the sound pressure level",
    licence="CC BY 4.0",
    source="Brooks, Pope, Marcolini (1989), Airfoil Self-Noise, UCI, https://doi.org/10.24432/C5VW2C",
    files=(
        DataFile(
            "airfoil/airfoil_self_noise.dat",
            59_984,
            "74c75fd71783f1e6b71f8a622b993dc592897a97cd689c5090a07147a1b097b3",
            (
                # Only the host's http address is documented; the checksum is what vouches for the file.
                "http://d2l-data.s3-accelerate.amazonaws.com/airfoil_self_noise.dat",
                "https://archive.ics.uci.edu/ml/machine-learning-databases/00291/airfoil_self_noise.dat",
            ),
        ),
    ),
)

_A9A = DataSet(
    name="a9a",
    title="a9a: 32,561 + 16,281 incomes (Adult) as 123 binary features, in LIBSVM's form",
    licence="CC BY 4.0",
    source="Becker, Kohavi (1996), Adult, UCI, https://doi.org/10.24432/C5XW20; made binary by Platt (1998) for LIBSVM",
    files=(
        _a9a("a9a", 2_329_875, "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906"),
        _a9a("a9a.t", 1_164_628, "1f448a153f0320399a7e40836eb207655b0bde0f21fc941cc472193daa9f5de9"),
    ),
)

_FSDD = DataSet(
    name="fsdd",
    title="Free Spoken Digit Dataset: 3,000 recordings of ten words by six speakers, 21.9 minutes at 8 kHz",
    licence="CC BY-SA 4.0",
    source="Jackson et al. (2018), Free Spoken Digit Dataset, https://doi.org/10.5281/zenodo.1342401",
    files=(
        DataFile(
            "fsdd/free-spoken-digit-dataset.zip",
            15_599_044,
            "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959",
            (
                # Earlier versions have fewer speakers: 1.0.9 five of them.
                "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.zip",
                "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip",
            ),
            members=".wav",
            also=("fsdd/fsdd.tar.gz",),
        ),
    ),
)

_DIGITS = DataSet(
    name="digits",
    title="Digits: 1,797 handwritten digits of 8 x 8 pixels",
    licence="CC BY 4.0",
    source="Alpaydin, Kaynak (1998), Optical Recognition of Handwritten Digits, UCI, https://doi.org/10.24432/C50P49",
)

DATA_SETS: dict[str, DataSet] = {each.name: each for each in (_MNIST, _AIRFOIL, _A9A, _FSDD, _DIGITS)}
