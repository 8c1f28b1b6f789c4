"""Sentences as token ids, and back. Id 0 is padding in every vocabulary of the book."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

PADDING = "<pad>"


def encode(sentences: Sequence[str], vocabulary: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of words between blanks → ids int64 `[N, size]`, padded with 0, and lengths int64 `[N]`."""
    number = {word: i for i, word in enumerate(vocabulary)}
    ids = np.zeros((len(sentences), size), np.int64)
    lengths = np.zeros(len(sentences), np.int64)
    for row, sentence in enumerate(sentences):
        words = sentence.split()
        ids[row, : len(words)] = [number[word] for word in words]
        lengths[row] = len(words)
    return ids, lengths


def decode(ids: Tensor | Iterable[int], vocabulary: Sequence[str]) -> str:
    """One sentence's ids `[L]` → its words, without the padding."""
    return " ".join(vocabulary[int(i)] for i in ids if int(i))
