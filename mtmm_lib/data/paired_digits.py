"""What the paired digit sets have in common: labels that follow from a digit, random
numbers, the dials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mtmm_lib.batch import MISSING_CLASS, Batch


def of_the_digit(digit: np.ndarray) -> dict[str, np.ndarray]:
    """The targets that follow from the digit: itself, `parity` and `size`."""
    return {"digit": digit, "parity": digit % 2, "size": (digit >= 5).astype(np.int64)}


def stream(seed: int, split: int, purpose: str) -> np.random.Generator:
    """Random numbers of their own for every purpose: turning one dial never changes
    what another draws."""
    purposes = (
        "images",
        "speakers",
        "clips",
        "captions",
        "image noise",
        "audio noise",
        "missing",
    )
    return np.random.default_rng([seed, split, purposes.index(purpose)])


@dataclass(frozen=True)
class Dials:
    """What a loader of paired digits can be asked for, checked; `talking_digits`
    explains each.

    Raises:
        ValueError: for an unknown task or modality, a number of labels, a noise or a
            rate out of range, or rates so high that a sample could lose every modality.
    """

    tasks: Sequence[str]
    modalities: Sequence[str]
    labels_per_class: int | Mapping[str, int] | None
    image_noise: float
    audio_noise: float
    missing: Mapping[str, float] | None
    seed: int
    known_tasks: Sequence[str]
    known_modalities: Sequence[str]

    def __post_init__(self) -> None:
        rates, few = self._rates(), self._few()
        _check_names("tasks", self.tasks, self.known_tasks)
        _check_names("modalities", self.modalities, self.known_modalities)
        _check_names("missing", rates, self.modalities)
        _check_names("labels_per_class", few, self.tasks)
        if any(n < 0 for n in few.values()):
            raise ValueError(
                f"labels_per_class needs numbers >= 0, got {self.labels_per_class}"
            )
        if self.image_noise < 0 or self.audio_noise < 0:
            raise ValueError(
                f"noise needs to be >= 0, got image_noise={self.image_noise}, "
                f"audio_noise={self.audio_noise}"
            )
        most = len(self.modalities) - 1
        if (
            any(not 0 <= rate <= 1 for rate in rates.values())
            or sum(rates.values()) > most
        ):
            raise ValueError(
                "missing needs rates in [0, 1] that leave every sample one of "
                f"{list(self.modalities)}, so a sum of at most {most}, got {rates}"
            )

    def _rates(self) -> dict[str, float]:
        return {m: (self.missing or {})[m] for m in sorted(self.missing or {})}

    def _few(self) -> dict[str, int]:
        """Task → labels to keep of each class."""
        if isinstance(self.labels_per_class, Mapping):
            return dict(self.labels_per_class)
        return (
            {}
            if self.labels_per_class is None
            else dict.fromkeys(self.tasks, self.labels_per_class)
        )

    def batch(
        self,
        split: int,
        inputs: Mapping[str, np.ndarray],
        lengths: Mapping[str, np.ndarray],
        targets: Mapping[str, np.ndarray],
    ) -> Batch:
        """Clean, complete samples of one split (0 is `train`), in random order → what
        was asked for.

        The arrays are the caller's no longer: they may be overwritten.
        """
        inputs = {m: inputs[m] for m in self.modalities}
        lengths = {m: lengths[m] for m in self.modalities if m in lengths}
        digit, targets = targets["digit"], {task: targets[task] for task in self.tasks}
        for name, deviation in (
            ("image", self.image_noise),
            ("audio", self.audio_noise),
        ):
            if deviation and name in inputs:
                rng = stream(self.seed, split, f"{name} noise")
                noise = rng.standard_normal(inputs[name].shape, np.float32)
                inputs[name] = inputs[name] + np.float32(deviation) * noise
        rates = self._rates()
        absent = (
            _absent(rates, len(digit), stream(self.seed, split, "missing"))
            if rates
            else {}
        )
        for name, rows in absent.items():
            inputs[name][rows] = 0
            if name in lengths:
                lengths[name][rows] = 0
        if split == 0:
            # The order of the samples is random, so that the first of a class are a
            # random choice.
            for task, count in self._few().items():
                by_digit = task == "ink" or not isinstance(
                    self.labels_per_class, Mapping
                )
                keep = _first_of_each(digit if by_digit else targets[task], count)
                none = np.nan if task == "ink" else MISSING_CLASS
                targets[task] = np.where(keep, targets[task], none).astype(
                    targets[task].dtype
                )
        return Batch(
            inputs={name: torch.from_numpy(inputs[name]) for name in self.modalities},
            targets={task: torch.from_numpy(targets[task]) for task in self.tasks},
            present={name: torch.from_numpy(~rows) for name, rows in absent.items()},
            lengths={name: torch.from_numpy(value) for name, value in lengths.items()},
        )


def _absent(
    rates: Mapping[str, float], size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    # The samples sit on a circle, and every modality is absent on an arc of it. The
    # arcs lie one behind the other, so that they cover the circle evenly: rates are met
    # to the nearest sample, and arcs of M - 1 rounds in all never put M of them over
    # one sample.
    place = rng.permutation(size)
    ends = np.rint(np.cumsum(list(rates.values())) * size).astype(int)
    starts = np.r_[0, ends[:-1]]
    return {
        name: (place - start) % size < end - start
        for name, start, end in zip(rates, starts, ends, strict=True)
    }


def _first_of_each(classes: np.ndarray, count: int) -> np.ndarray:
    """Bool `[B]`: the first `count` samples of every class."""
    keep = np.zeros(len(classes), bool)
    for c in np.unique(classes):
        keep[np.flatnonzero(classes == c)[:count]] = True
    return keep


def _check_names(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{what}: unknown {unknown}; known are {list(known)}")
