r"""Talking Digits, the book's running example: handwritten digits that are also spoken and described.

| task | kind | image | audio | text |
|---|---|---|---|---|
| `digit` | 10 classes | yes | yes | half of the captions name it |
| `parity` | even, odd | yes | yes | yes |
| `size` | below five, five or more | yes | yes | three quarters of the captions tell |
| `ink` | regression | yes | no | no |
| `accent` | 7 classes | no | yes | no |
| `rate` | 3 classes | no | yes | no |
| `pitch` | 3 classes | no | yes | no |

`accent`, `rate` and `pitch` can only be heard; `ink` can only be seen. How the sounds were made, how many
there are of each kind, and how well simple models do: `data/talking_digits/CARD.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch

from mtmm_lib.batch import MISSING_CLASS, Batch
from mtmm_lib.data.files import data_file
from mtmm_lib.data.splits import Splits
from mtmm_lib.data.text import PADDING, encode

MODALITIES = ("image", "audio", "text")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Class names of every classification task, in the order of the class numbers.
CLASSES: dict[str, tuple[str, ...]] = {
    "digit": WORDS,
    "parity": ("even", "odd"),
    "size": ("below five", "five or more"),
    "accent": (
        "British",
        "American",
        "Scottish",
        "Received Pronunciation",
        "Lancaster",
        "West Midlands",
        "Caribbean",
    ),
    "rate": ("slow", "medium", "fast"),
    "pitch": ("low", "middle", "high"),
}
TASKS = ("digit", "parity", "size", "ink", "accent", "rate", "pitch")
#: Words of the captions; a word's position is its token id.
VOCABULARY = (PADDING, *WORDS, "a", "an", "the", "digit", "even", "odd", "small", "large")
IMAGE_SHAPE = (1, 8, 8)
AUDIO_SHAPE = (32, 24)  # frames of 23 ms, mel bands
TEXT_LENGTH = 4

SIZES = (1000, 300, 497)
_SPEAKERS = (6, 2, 2)


def _captions(digit: int) -> tuple[str, ...]:
    word, parity = WORDS[digit], CLASSES["parity"][digit % 2]
    size = "large" if digit >= 5 else "small"
    return word, f"the digit {word}", f"an {parity} digit", f"a {size} {parity} digit"


@cache
def _source() -> dict[str, np.ndarray]:
    """Everything that is the same for all seeds, decoded once per process."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    image = (digits.images / 16).astype(np.float32).reshape(-1, *IMAGE_SHAPE)
    ink = image.mean((1, 2, 3))
    with np.load(data_file("talking_digits", "talking_digits.npz")) as stored:
        clips = {key: stored[key] for key in stored.files}
    recipe = json.loads(clips.pop("recipe").item())
    decibels = clips.pop("log_mel").astype(np.float32) * recipe["step_db"]
    captions = [caption for digit in range(10) for caption in _captions(digit)]
    text, text_length = encode(captions, VOCABULARY, TEXT_LENGTH)
    return {
        "image": image,
        "image_digit": digits.target.astype(np.int64),
        "ink": (ink - ink.mean()) / ink.std(),
        "audio": (decibels - decibels.mean()) / decibels.std(),
        "text": text.reshape(10, -1, TEXT_LENGTH),
        "text_length": text_length.reshape(10, -1),
        **{key: value.astype(np.int64) for key, value in clips.items()},
    }


def _random(seed: int, split: int, purpose: str) -> np.random.Generator:
    # A stream of its own for every purpose: turning one knob never changes what another one draws.
    purposes = ("images", "speakers", "clips", "captions", "image noise", "audio noise", "missing")
    return np.random.default_rng([seed, split, purposes.index(purpose)])


def _pairs(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each split, the numbers of its images and of the clips they are paired with, in random order.

    Images and speakers are dealt out to the splits first; only then are pairs made, by label and within
    a split, so that no image, no clip and no speaker is in two splits. No clip is used twice.
    """
    source = _source()
    images = np.split(_random(seed, 0, "images").permutation(len(source["image"])), np.cumsum(SIZES)[:-1])
    speakers = _random(seed, 0, "speakers").permutation(sum(_SPEAKERS))
    pairs = []
    for split, (image, speaker) in enumerate(
        zip(images, np.split(speakers, np.cumsum(_SPEAKERS)[:-1]), strict=True)
    ):
        heard = np.flatnonzero(np.isin(source["voice"], speaker))
        heard = _random(seed, split, "clips").permutation(heard)
        clip = np.empty_like(image)
        for digit in range(10):
            wanted = source["image_digit"][image] == digit
            clip[wanted] = heard[source["digit"][heard] == digit][: wanted.sum()]
        pairs.append((image, clip))
    return pairs


def _absent(rates: Mapping[str, float], size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    # The samples sit on a circle, and every modality is absent on an arc of it. The arcs lie one behind the
    # other, so that they cover the circle evenly: rates are met to the nearest sample, and arcs of M - 1
    # rounds in all never put M of them over one sample.
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


def _check_names(what: str, names: Sequence[str] | Mapping, known: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{what}: unknown {unknown}; known are {list(known)}")


def talking_digits(
    *,
    tasks: Sequence[str] = TASKS,
    modalities: Sequence[str] = ("image", "audio"),
    labels_per_class: int | Mapping[str, int] | None = None,
    image_noise: float = 0.0,
    audio_noise: float = 0.0,
    missing: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Splits:
    r"""Handwritten digits with their spoken names and captions: 1,000 / 300 / 497 samples.

    Images and speakers are split at random first, and an image is then paired with a clip of the same digit
    out of the same split. A *speaker* is one of espeak-ng's ten voices, in all of its accents: six speak in
    `train`, two in `valid`, two in `test`. Hence no image, no clip and no speaker is in two splits, while
    every accent is in all three.

    `seed` redraws all of it: the split of images and speakers, the pairs, which samples keep their labels,
    which modality is missing where, captions and noise. Every knob has random numbers of its own: with the
    same seed, other labels or more noise leave everything else as it was, and noise only grows.

    Args:
        tasks: which targets to return, of `digit, parity, size, ink, accent, rate, pitch`.
            `accent`, `rate` and `pitch` can only be heard, `ink` can only be seen.
        modalities: which inputs to return, of `image, audio, text`.
        labels_per_class: how many training samples keep their label; `None`: all.
            A number n: n samples of each digit keep all their labels, the others lose all of them.
            A dict {task: n}: n samples of each class of that task keep the label of that task (for `ink`: n
            of each digit); tasks left out keep every label. With the same seed more labels are always a
            superset of fewer. `valid` and `test` keep all labels.
        image_noise: standard deviation of Gaussian noise on every pixel, where full ink is 1.
        audio_noise: standard deviation of Gaussian noise on every cell of the standardised log-mel.
        missing: {modality: rate}, the share of samples, in each split, that lack this modality. Rates are
            met to the nearest sample, and every sample keeps at least one of the modalities returned.
        seed: a number ≥ 0.

    Returns:
        Splits of batches. Inputs: `image` float `[B, 1, 8, 8]` in [0, 1] (before noise); `audio` float
        `[B, 32, 24]`, log-mel frames standardised by the mean and deviation of all clips, with `lengths`
        (what follows is silence); `text` int64 `[B, 4]` ids of `VOCABULARY`, with `lengths`. An absent input
        is zeros, with length 0 and `present` false.
        Targets: classes int64 `[B]`, −1 where missing; `ink` float `[B]`, the mean of the clean image's
        pixels in standard units, NaN where missing. A clip that two accents speak alike has accent −1.

    Raises:
        ValueError: for an unknown task or modality, a number of labels, a noise or a rate out of range, or
            rates so high that a sample could lose every modality.
    """
    missing = {m: (missing or {})[m] for m in sorted(missing or {})}
    by_task = isinstance(labels_per_class, Mapping)
    if labels_per_class is None:
        few = {}
    else:
        few = dict(labels_per_class) if by_task else dict.fromkeys(tasks, labels_per_class)
    _check_names("tasks", tasks, TASKS)
    _check_names("modalities", modalities, MODALITIES)
    _check_names("missing", missing, modalities)
    _check_names("labels_per_class", few, tasks)
    if any(n < 0 for n in few.values()):
        raise ValueError(f"labels_per_class needs numbers >= 0, got {labels_per_class}")
    if image_noise < 0 or audio_noise < 0:
        raise ValueError(f"noise needs to be >= 0, got image_noise={image_noise}, audio_noise={audio_noise}")
    if any(not 0 <= rate <= 1 for rate in missing.values()) or sum(missing.values()) > len(modalities) - 1:
        raise ValueError(
            f"missing needs rates in [0, 1] that leave every sample one of {list(modalities)}, "
            f"so a sum of at most {len(modalities) - 1}, got {missing}"
        )

    source, batches = _source(), []
    for split, (image, clip) in enumerate(_pairs(seed)):
        digit = source["image_digit"][image]
        caption = _random(seed, split, "captions").integers(source["text"].shape[1], size=len(image))
        values = {
            "image": source["image"][image],
            "audio": source["audio"][clip],
            "text": source["text"][digit, caption],
        }
        lengths = {"audio": source["frames"][clip], "text": source["text_length"][digit, caption]}
        targets = {
            "digit": digit,
            "parity": digit % 2,
            "size": (digit >= 5).astype(np.int64),
            "ink": source["ink"][image],
            **{task: source[task][clip] for task in ("accent", "rate", "pitch")},
        }
        for name, deviation in (("image", image_noise), ("audio", audio_noise)):
            if deviation and name in modalities:
                noise = _random(seed, split, f"{name} noise").standard_normal(values[name].shape, np.float32)
                values[name] = values[name] + np.float32(deviation) * noise
        absent = _absent(missing, len(image), _random(seed, split, "missing")) if missing else {}
        for name, rows in absent.items():
            values[name][rows] = 0
            if name in lengths:
                lengths[name][rows] = 0
        if split == 0:
            # The order of the samples is random already, so that the first of a class are a random choice.
            for task, count in few.items():
                keep = _first_of_each(targets[task] if by_task and task != "ink" else digit, count)
                none = np.nan if task == "ink" else MISSING_CLASS
                targets[task] = np.where(keep, targets[task], none).astype(targets[task].dtype)
        batches.append(
            Batch(
                inputs={name: torch.from_numpy(values[name]) for name in modalities},
                targets={task: torch.from_numpy(targets[task]) for task in tasks},
                present={name: torch.from_numpy(~rows) for name, rows in absent.items()},
                lengths={name: torch.from_numpy(lengths[name]) for name in modalities if name in lengths},
            )
        )
    return Splits(*batches)
