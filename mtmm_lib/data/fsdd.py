r"""Real speech: the spoken digits of FSDD, paired with handwritten ones as in Talking
Digits.

| task | kind | image | audio |
|---|---|---|---|
| `digit` | 10 classes | yes | yes |
| `parity` | even, odd | yes | yes |
| `size` | below five, five or more | yes | yes |
| `ink` | regression | yes | no |
| `speaker` | 6 classes | no | yes, of a speaker that was heard in training |

The Free Spoken Digit Dataset has 3,000 recordings: six speakers say each digit 50
times. It is not embedded: `registry.fetch("fsdd")` gets it. What it is and how it was
recorded: `data/fsdd/CARD.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from mtmm_lib.data import registry
from mtmm_lib.data.paired_digits import Dials, of_the_digit, stream
from mtmm_lib.data.scikit_learn_digits import scikit_learn_digits
from mtmm_lib.data.sound import LogMel, read_wav
from mtmm_lib.data.splits import Splits

MODALITIES = ("image", "audio")
TASKS = ("digit", "parity", "size", "ink", "speaker")
#: In the order of the class numbers of the target `speaker`.
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
#: Frames and bands as in Talking Digits; the frames are as far apart, and the bands end
#: where 8 kHz end.
LOG_MEL = LogMel(
    sample_rate=8000, window=560, hop=186, fft=1024, lowest=60, highest=4000
)
AUDIO_SHAPE = (32, 24)  # frames of 23 ms, mel bands

SIZES_PER_DIGIT = (100, 30, 40)
_SPEAKERS = (4, 1, 1)
_SPEECH_DB = 30.0  # what is softer, at either end of a recording, is taken for silence
# Of the recordings, to the nearest decibel, and constants ever since.
_MEAN_DB, _DEVIATION_DB = 13.0, 18.0


def speech(samples: np.ndarray) -> tuple[np.ndarray, int]:
    """Samples int16 `[n]`, at 8 kHz → `audio` as a model takes it, float32 `[32, 24]`,
    and its frames.

    Softer ends are cut off, up to the first and from the last frame within 30 dB of the
    loudest cell; of what is longer than the picture (0.8 s) the beginning stays; what
    is shorter is followed by silence. Where there is nothing but silence, no frame is
    filled.
    """
    levels = LOG_MEL(samples)
    loud = np.flatnonzero(
        levels.max(1) >= (LOG_MEL.range_db - _SPEECH_DB) / LOG_MEL.step_db
    )
    start, stop = (loud[0], loud[-1] + 1) if len(loud) else (0, 0)
    levels = levels[start:stop][: AUDIO_SHAPE[0]]
    decibels = np.zeros(AUDIO_SHAPE, np.float32)
    decibels[: len(levels)] = levels * np.float32(LOG_MEL.step_db)
    return (decibels - np.float32(_MEAN_DB)) / np.float32(_DEVIATION_DB), len(levels)


@cache
def _source() -> dict[str, np.ndarray]:
    """All recordings, digit by digit, verified and read once per process."""
    folder = registry.fetch("fsdd") / "recordings"
    which = [
        (d, s, k) for d in range(10) for s in range(len(SPEAKERS)) for k in range(50)
    ]
    waves = [read_wav(folder / f"{d}_{SPEAKERS[s]}_{k}.wav")[0] for d, s, k in which]
    audio, frames = zip(*map(speech, waves), strict=True)
    digit, speaker, _ = np.array(which, np.int64).T
    return {
        "audio": np.stack(audio),
        "frames": np.array(frames, np.int64),
        "digit": digit,
        "speaker": speaker,
    }


def _pairs(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each split, the numbers of its images and of the recordings they are paired
    with, in random order.

    As in Talking Digits, images and speakers are dealt out first and pairs made within
    a split. Here every digit is dealt out alike: one speaker has no more than 50
    recordings of it.
    """
    source, written = _source(), scikit_learn_digits()["digit"]
    turn = stream(seed, 0, "speakers").permutation(len(SPEAKERS))
    speakers = np.split(turn, np.cumsum(_SPEAKERS)[:-1])
    shuffle = stream(seed, 0, "images")
    images = [
        shuffle.permutation(np.flatnonzero(written == digit)) for digit in range(10)
    ]
    pairs = []
    for split, size in enumerate(SIZES_PER_DIGIT):
        rng, start = stream(seed, split, "clips"), sum(SIZES_PER_DIGIT[:split])
        heard = np.isin(source["speaker"], speakers[split])
        clips = [
            rng.permutation(np.flatnonzero(heard & (source["digit"] == d)))[:size]
            for d in range(10)
        ]
        order = rng.permutation(10 * size)
        seen = [image[start : start + size] for image in images]
        pairs.append((np.concatenate(seen)[order], np.concatenate(clips)[order]))
    return pairs


def fsdd(
    *,
    tasks: Sequence[str] = TASKS,
    modalities: Sequence[str] = MODALITIES,
    labels_per_class: int | Mapping[str, int] | None = None,
    image_noise: float = 0.0,
    audio_noise: float = 0.0,
    missing: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Splits:
    r"""Handwritten digits with real recordings of their names: 1,000 / 300 / 400
    samples.

    Four speakers are heard in `train`, one in `valid`, one in `test`; an image is
    paired with a recording of the same digit out of the same split. Hence no image, no
    recording and no speaker is in two splits, and none comes twice. All digits are
    equally frequent.

    Args:
        tasks: which targets to return, of `digit, parity, size, ink, speaker`.
            `speaker` can only be heard, `ink` can only be seen. No model can know the
            speakers of `valid` and `test`, who are held out: to learn who speaks,
            divide `train` further.
        modalities: which inputs to return, of `image, audio`.
        labels_per_class, image_noise, audio_noise, missing: as in `talking_digits`.
        seed: a number ≥ 0; redraws everything, as in `talking_digits`.

    Returns:
        Splits of batches with the inputs `image` float `[B, 1, 8, 8]` in [0, 1] (before
        noise); `audio` float `[B, 32, 24]`, what `speech` makes of a recording, with
        `lengths`. An absent input is zeros, with length 0 and `present` false. Targets
        as in `talking_digits`, and `speaker` int64 `[B]`.

    Raises:
        DataError: when the recordings cannot be had; the message says how to get them.
        ValueError: as in `talking_digits`.
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
        batches.append(
            dials.batch(
                split,
                inputs={
                    "image": images["image"][image],
                    "audio": source["audio"][clip],
                },
                lengths={"audio": source["frames"][clip]},
                targets={
                    **of_the_digit(images["digit"][image]),
                    "ink": images["ink"][image],
                    "speaker": source["speaker"][clip],
                },
            )
        )
    return Splits(*batches)
