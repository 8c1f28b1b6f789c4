"""Random numbers that follow from a few integers alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def permutation(size: int, seed: int, epoch: int) -> Tensor:
    """The order, int `[size]`, in which an epoch of a run with this seed visits its
    samples."""
    return torch.randperm(
        size, generator=torch.Generator().manual_seed(derive_seed(seed, epoch))
    )


def derive_seed(*key: int) -> int:
    """One seed from several integers, such that neighbouring keys give unrelated
    streams."""
    return int(digest([repr(key).encode()]), 16)


def digest(parts: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
