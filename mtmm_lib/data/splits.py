"""What every data set of the book returns."""

from __future__ import annotations

from typing import NamedTuple

from mtmm_lib.batch import Batch


class Splits(NamedTuple):
    """Three batches that share no sample: `train, valid, test = talking_digits()`."""

    train: Batch
    valid: Batch
    test: Batch
