r"""Talking Digits, the book's running example: handwritten digits that are also spoken
and described.

| task | kind | image | audio | text |
|---|---|---|---|---|
| `digit` | 10 classes | yes | yes | half of the captions name it |
| `parity` | even, odd | yes | yes | yes |
| `size` | below five, five or more | yes | yes | three quarters of the captions tell |
| `ink` | regression | yes | no | no |
| `accent` | 7 classes | no | yes | no |
| `rate` | 3 classes | no | yes | no |
| `pitch` | 3 classes | no | yes | no |

`accent`, `rate` and `pitch` can only be heard; `ink` can only be seen. How the sounds
were made, how many there are of each kind, and how well simple models do:
`data/talking_digits/CARD.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from mtmm_lib.data.files import data_file
from mtmm_lib.data.paired_digits import Dials, of_the_digit, stream
from mtmm_lib.data.scikit_learn_digits import scikit_learn_digits
from mtmm_lib.data.sound import wav_bytes
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
VOCABULARY = (
    PADDING,
    *WORDS,
    "a",
    "an",
    "the",
    "digit",
    "even",
    "odd",
    "small",
    "large",
)
AUDIO_SHAPE = (32, 24)  # frames of 23 ms, mel bands
TEXT_LENGTH = 4

#: Six samples of the test part of seed 0 that one can listen to, `aloud`, with this
#: noise or without. In the first neither the picture nor the sound is enough.
ALOUD = (1, 36, 376, 462, 435, 46)
NOISE = {"image_noise": 0.3, "audio_noise": 1.3}

SIZES = (1000, 300, 497)
_SPEAKERS = (6, 2, 2)


def _captions(digit: int) -> tuple[str, ...]:
    word, parity = WORDS[digit], CLASSES["parity"][digit % 2]
    size = "large" if digit >= 5 else "small"
    return word, f"the digit {word}", f"an {parity} digit", f"a {size} {parity} digit"


@cache
def _source() -> dict[str, np.ndarray]:
    """The sounds and the captions, which are the same for all seeds, decoded once per
    process."""
    with np.load(data_file("talking_digits", "talking_digits.npz")) as stored:
        clips = {key: stored[key] for key in stored.files}
    recipe = json.loads(clips.pop("recipe").item())
    decibels = clips.pop("log_mel").astype(np.float32) * recipe["step_db"]
    captions = [caption for digit in range(10) for caption in _captions(digit)]
    text, text_length = encode(captions, VOCABULARY, TEXT_LENGTH)
    return {
        "audio": (decibels - decibels.mean()) / decibels.std(),
        "text": text.reshape(10, -1, TEXT_LENGTH),
        "text_length": text_length.reshape(10, -1),
        **{key: value.astype(np.int64) for key, value in clips.items()},
    }


def _pairs(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each split, the numbers of its images and of the clips they are paired with,
    in random order.

    Images and speakers are dealt out to the splits first; only then are pairs made, by
    label and within a split, so that no image, no clip and no speaker is in two splits.
    No clip is used twice.
    """
    source, written = _source(), scikit_learn_digits()["digit"]
    images = np.split(
        stream(seed, 0, "images").permutation(len(written)), np.cumsum(SIZES)[:-1]
    )
    speakers = stream(seed, 0, "speakers").permutation(sum(_SPEAKERS))
    pairs = []
    for split, (image, speaker) in enumerate(
        zip(images, np.split(speakers, np.cumsum(_SPEAKERS)[:-1]), strict=True)
    ):
        heard = np.flatnonzero(np.isin(source["voice"], speaker))
        heard = stream(seed, split, "clips").permutation(heard)
        clip = np.empty_like(image)
        for digit in range(10):
            wanted = written[image] == digit
            clip[wanted] = heard[source["digit"][heard] == digit][: wanted.sum()]
        pairs.append((image, clip))
    return pairs


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
    r"""Handwritten digits with their spoken names and captions: 1,000 / 300 / 497
    samples.

    Images and speakers are split at random first, and an image is then paired with a
    clip of the same digit out of the same split. A *speaker* is one of espeak-ng's ten
    voices, in all of its accents: six speak in `train`, two in `valid`, two in `test`.
    Hence no image, no clip and no speaker is in two splits, while every accent is in
    all three.

    `seed` redraws all of it: the split of images and speakers, the pairs, which samples
    keep their labels, which modality is missing where, captions and noise. Every knob
    has random numbers of its own: with the same seed, other labels or more noise leave
    everything else as it was, and noise only grows.

    Args:
        tasks: which targets to return, of
            `digit, parity, size, ink, accent, rate, pitch`. `accent`, `rate` and
            `pitch` can only be heard, `ink` can only be seen.
        modalities: which inputs to return, of `image, audio, text`.
        labels_per_class: how many training samples keep their label; `None`: all. A
            number n: n samples of each digit keep all their labels, the others lose all
            of them. A dict {task: n}: n samples of each class of that task keep the
            label of that task (for `ink`: n of each digit); tasks left out keep every
            label. With the same seed more labels are always a superset of fewer.
            `valid` and `test` keep all labels.
        image_noise: standard deviation of Gaussian noise on every pixel, where full ink
            is 1.
        audio_noise: standard deviation of Gaussian noise on every cell of the
            standardised log-mel.
        missing: {modality: rate}, the share of samples, in each split, that lack this
            modality. Rates are met to the nearest sample, and every sample keeps at
            least one of the modalities returned.
        seed: a number ≥ 0.

    Returns:
        Splits of batches with the inputs `image` float `[B, 1, 8, 8]` in [0, 1] (before
        noise); `audio` float `[B, 32, 24]`, log-mel frames standardised by the mean and
        deviation of all clips, with `lengths` (what follows is silence); `text` int64
        `[B, 4]` ids of `VOCABULARY`, with `lengths`. An absent input is zeros, with
        length 0 and `present` false. Targets: classes int64 `[B]`, −1 where missing;
        `ink` float `[B]`, the mean of the clean image's pixels in standard units, NaN
        where missing. A clip that two accents speak alike has accent −1.

    Raises:
        ValueError: for an unknown task or modality, a number of labels, a noise or a
            rate out of range, or rates so high that a sample could lose every modality.
    """
    dials = Dials(
        tasks,
        modalities,
        labels_per_class,
        image_noise,
        audio_noise,
        missing,
        seed,
        TASKS,
        MODALITIES,
    )
    source, images, batches = _source(), scikit_learn_digits(), []
    for split, (image, clip) in enumerate(_pairs(seed)):
        digit = images["digit"][image]
        caption = stream(seed, split, "captions").integers(
            source["text"].shape[1], size=len(image)
        )
        batches.append(
            dials.batch(
                split,
                inputs={
                    "image": images["image"][image],
                    "audio": source["audio"][clip],
                    "text": source["text"][digit, caption],
                },
                lengths={
                    "audio": source["frames"][clip],
                    "text": source["text_length"][digit, caption],
                },
                targets={
                    **of_the_digit(digit),
                    "ink": images["ink"][image],
                    **{
                        task: source[task][clip] for task in ("accent", "rate", "pitch")
                    },
                },
            )
        )
    return Splits(*batches)


def aloud() -> dict[str, list[bytes]]:
    """The sounds of the six samples `ALOUD`, "clean" and "noisy", as WAV files.

        settings = dict(tasks=("digit",), seed=0)
        six = talking_digits(**settings, **NOISE).test[list(ALOUD)]
        sounds = aloud()["noisy"]  # what six.inputs["audio"] sounds like

    The noise is that of the log-mels, for an ear: by the same random numbers each band
    is turned up and down, at half the strength. How it was made:
    `data/talking_digits/CARD.md`.
    """
    with np.load(data_file("talking_digits", "aloud.npz")) as stored:
        rate = int(stored["sample_rate"])
        return {
            kind: [wav_bytes(stored[f"{kind} {i}"], rate) for i in range(len(ALOUD))]
            for kind in ("clean", "noisy")
        }
