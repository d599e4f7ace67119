"""The data sets as NumPy arrays, as they are in their files: nothing is scaled, shuffled or split here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .archives import members
from .files import locate
from .formats import read_idx, read_numbers

__all__ = ["Digits", "Mnist", "airfoil", "digits", "fsdd", "mnist"]


class Mnist(NamedTuple):
    """MNIST: images of 28 x 28 pixels from 0 (paper) to 255 (ink), and their digits 0 to 9; every array is uint8."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


class Digits(NamedTuple):
    """Images of 8 x 8 pixels in a row, float64, from 0 (paper) to 16 (ink), and their digits 0 to 9, int64."""

    images: NDArray[np.float64]
    labels: NDArray[np.int64]


def mnist() -> Mnist:
    """Read MNIST, fetching its files if they are not here.

    Returns:
        train_images (60000, 28, 28), train_labels (60000,), test_images (10000, 28, 28), test_labels (10000,); uint8.

    Raises:
        DataError: a file cannot be had or is not the right one.

    Source: LeCun, Bottou, Bengio, Haffner (1998), https://doi.org/10.1109/5.726791
    """
    paths = locate("mnist")
    return Mnist(
        train_images=read_idx(paths["train-images-idx3-ubyte.gz"], (60_000, 28, 28)),
        train_labels=read_idx(paths["train-labels-idx1-ubyte.gz"], (60_000,)),
        test_images=read_idx(paths["t10k-images-idx3-ubyte.gz"], (10_000, 28, 28)),
        test_labels=read_idx(paths["t10k-labels-idx1-ubyte.gz"], (10_000,)),
    )


def airfoil() -> NDArray[np.float64]:
    """Read the airfoil self-noise measurements, fetching their file if it is not here.

    Returns:
        (1503, 6), float64. The columns are the frequency (Hz), the angle of attack (degrees), the chord length (m), the
        free-stream velocity (m/s), the suction side's displacement thickness (m), and the scaled sound pressure level
        (dB), which is the one to predict.

    Raises:
        DataError: the file cannot be had or is not the right one.

    Source: Brooks, Pope, Marcolini (1989), https://doi.org/10.24432/C5VW2C
    """
    return read_numbers(locate("airfoil")["airfoil_self_noise.dat"], (1503, 6))


def fsdd() -> dict[str, bytes]:
    """Read the Free Spoken Digit Dataset, fetching its file if it is not here.

    Returns:
        The 3,000 wav files (8 kHz, mono, 16 bits) by their names, `DIGIT_SPEAKER_NUMBER.wav`.

    Raises:
        DataError: the file cannot be had or does not hold the right recordings.

    Source: Jackson et al. (2018), https://doi.org/10.5281/zenodo.1342401
    """
    (path,) = locate("fsdd").values()
    return members(path, ".wav")


def digits() -> Digits:
    """Read the 8 x 8 digits that scikit-learn carries; needs no file and no network.

    Returns:
        images (1797, 64), float64, row after row of each image; labels (1797,), int64.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    Source: Alpaydin, Kaynak (1998), https://doi.org/10.24432/C50P49
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        message = "the data set digits needs scikit-learn: pip install 'steprule[lab]'"
        raise ModuleNotFoundError(message, name=error.name) from error
    images, labels = load_digits(return_X_y=True)
    return Digits(np.asarray(images, np.float64), np.asarray(labels, np.int64))
