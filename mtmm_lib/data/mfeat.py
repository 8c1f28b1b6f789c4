"""Multiple Features: 2,000 handwritten digits, each described in six ways.

The six descriptions serve as modalities: each sees something that the others do not.
Where the set comes
from, how well simple models do, and which drawings occur twice: `data/mfeat/CARD.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from mtmm_lib.batch import Batch
from mtmm_lib.data.registry import fetch
from mtmm_lib.data.splits import Splits

#: View → what its numbers are.
VIEWS: dict[str, str] = {
    "fac": "216 profile correlations",
    "fou": "76 Fourier coefficients of the character's shape",
    "kar": "64 Karhunen-Loève coefficients",
    "mor": "6 morphological features",
    "pix": "240 pixel averages, in windows of 2 × 3",
    "zer": "47 Zernike moments",
}
SHARES = (0.5, 0.2, 0.3)
#: Squared distance of two `pix` vectors below which they show one drawing. The closest
#: pairs lie at 0 to 116 (upside down: 0 to 78), the next at 153 (186) and more, while
#: an image's squared length is 3,900.
_ONE_DRAWING = 130


@cache
def _source(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Values of each view float64 `[2000, D]`, digits, and a number for each
    drawing."""
    tables = {
        view: np.loadtxt(folder / f"mfeat-{view}.csv", delimiter=",", skiprows=1)
        for view in VIEWS
    }
    values = {view: table[:, :-1] for view, table in tables.items()}
    return values, tables["pix"][:, -1].astype(np.int64), _drawings(values["pix"])


def _drawings(pixels: np.ndarray) -> np.ndarray:
    """Numbers int `[N]`, the same for images that show one drawing, upright or turned
    by half a circle."""

    def near(others: np.ndarray) -> np.ndarray:
        squares: np.ndarray = (pixels**2).sum(1)[:, None] + (others**2).sum(1)
        alike: np.ndarray = squares - 2 * pixels @ others.T < _ONE_DRAWING
        return alike

    turned = pixels[:, ::-1]  # pixels in reading order, read from the end
    same = near(pixels) | near(turned)
    number = np.arange(len(pixels))
    while not np.array_equal(
        smallest := np.where(same, number, len(pixels)).min(1), number
    ):
        # the smallest number spreads through everything that hangs together
        number = smallest
    return number


def _deal(digits: np.ndarray, drawings: np.ndarray, seed: int) -> list[np.ndarray]:
    """The samples of each split: drawings are dealt out, separately for each
    combination of digits."""
    kinds: dict[tuple[int, ...], list[np.ndarray]] = {}
    for drawing in np.unique(drawings):
        samples = np.flatnonzero(drawings == drawing)
        kinds.setdefault(tuple(sorted(digits[samples])), []).append(samples)
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[], [], []]
    for _, groups in sorted(kinds.items()):
        ends = np.rint(np.cumsum(SHARES) * len(groups)).astype(int)
        for part, chosen in zip(
            parts, np.split(rng.permutation(len(groups)), ends[:-1]), strict=True
        ):
            part += [groups[i] for i in chosen]
    return [rng.permutation(np.concatenate(part)) for part in parts]


def mfeat(*, views: Sequence[str] = tuple(VIEWS), seed: int = 0) -> Splits:
    r"""Handwritten digits in six views: about 1,000 / 400 / 600 samples, of every digit
    about a tenth.

    More than half of the sixes are nines upside down, or the other way round, and a few
    drawings occur twice. All samples that show one drawing are in the same split.

    Args:
        views: which inputs to return, of `fac, fou, kar, mor, pix, zer` (`VIEWS` says
            what they are).
        seed: a number ≥ 0; redraws the split.

    Returns:
        Splits of batches. The inputs are the views, each float `[B, D]`, standardised
        by the mean and the deviation of the training split (a number that is constant
        there is only shifted). The target is `digit` int64 `[B]`.

    Raises:
        DataError: when the files cannot be had (see `registry.fetch`).
        ValueError: for an unknown view.
    """
    if unknown := [view for view in views if view not in VIEWS]:
        raise ValueError(f"views: unknown {unknown}; known are {list(VIEWS)}")
    values, digits, drawings = _source(fetch("mfeat"))
    parts = _deal(digits, drawings, seed)
    inputs: list[dict[str, torch.Tensor]] = [{}, {}, {}]
    for view in views:
        train = values[view][parts[0]]
        deviation = train.std(0)
        for part, tensors in zip(parts, inputs, strict=True):
            standard = (values[view][part] - train.mean(0)) / np.where(
                deviation > 0, deviation, 1
            )
            tensors[view] = torch.from_numpy(standard.astype(np.float32))
    return Splits(
        *(
            Batch(inputs=tensors, targets={"digit": torch.from_numpy(digits[part])})
            for part, tensors in zip(parts, inputs, strict=True)
        )
    )
