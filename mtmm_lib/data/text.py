"""Sentences as token ids, and back. Id 0 is padding in every vocabulary of the book."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mtmm_lib.batch import Batch
from mtmm_lib.data.splits import Splits

PADDING = "<pad>"
UNKNOWN = "<unknown>"


def encode(
    sentences: Sequence[str | Sequence[str]], vocabulary: Sequence[str], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sentences → ids int64 `[N, size]`, padded with 0, and lengths int64 `[N]`.

    A sentence is a list of words, or a string with blanks between its words.

    Raises:
        KeyError: for a word that is not in the vocabulary, unless `UNKNOWN` is and
            stands for it.
    """
    number = {word: i for i, word in enumerate(vocabulary)}
    unknown = number.get(UNKNOWN)
    ids = np.zeros((len(sentences), size), np.int64)
    lengths = np.zeros(len(sentences), np.int64)
    for row, sentence in enumerate(sentences):
        words = sentence.split() if isinstance(sentence, str) else sentence
        ids[row, : len(words)] = [
            number[word] if unknown is None else number.get(word, unknown)
            for word in words
        ]
        lengths[row] = len(words)
    return ids, lengths


def decode(ids: Tensor | Iterable[int], vocabulary: Sequence[str]) -> str:
    """One sentence's ids `[L]` → its words, without the padding."""
    return " ".join(vocabulary[int(i)] for i in ids if int(i))


class _Words(Protocol):
    """A sentence of a real data set: its words, and whatever the set says about
    them."""

    @property
    def words(self) -> tuple[str, ...]: ...


_Sentence = TypeVar("_Sentence", bound=_Words)


@dataclass(frozen=True, eq=False)
class Corpus(Generic[_Sentence]):
    """Sentences, and the same as numbers.

    Args:
        splits: batches with the input `text` int64 `[B, L]`, ids of `vocabulary`, with
            `lengths`.
        sentences: those of `splits.train`, of `splits.valid` and of `splits.test`, in
            the same order.
        vocabulary: `PADDING`, `UNKNOWN`, then words in small letters; a word's position
            is its id.
    """

    splits: Splits
    sentences: tuple[list[_Sentence], list[_Sentence], list[_Sentence]]
    vocabulary: tuple[str, ...]


def corpus(
    train: list[_Sentence],
    valid: list[_Sentence],
    test: list[_Sentence],
    targets: Callable[[list[_Sentence], int], dict[str, np.ndarray]],
) -> Corpus[_Sentence]:
    """Sentences as a `Corpus`.

    The vocabulary is made from the training sentences alone. It leaves out the words
    that occur there once, so that the id of unknown words is met, and learned, in
    training.

    Args:
        targets: some of the sentences, and the length L to which they are padded →
            target arrays.
    """
    parts = (train, valid, test)
    lower = [
        [[word.lower() for word in sentence.words] for sentence in part]
        for part in parts
    ]
    counts = Counter(word for words in lower[0] for word in words)
    vocabulary = (
        PADDING,
        UNKNOWN,
        *sorted(word for word, count in counts.items() if count > 1),
    )
    size = max(len(words) for part in lower for words in part)
    batches = []
    for part, words in zip(parts, lower, strict=True):
        ids, lengths = encode(words, vocabulary, size)
        batches.append(
            Batch(
                inputs={"text": torch.from_numpy(ids)},
                targets={
                    name: torch.from_numpy(values)
                    for name, values in targets(part, size).items()
                },
                lengths={"text": torch.from_numpy(lengths)},
            )
        )
    return Corpus(Splits(*batches), parts, vocabulary)
