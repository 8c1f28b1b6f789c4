r"""Makes `talking_digits.npz`: the words "zero" to "nine", spoken by espeak-ng, as
8-bit log-mel pictures; and `aloud.npz`: six of them to listen to.

    # writes both files beside this script, about a minute
    python data/talking_digits/make.py
    # makes everything again and compares it with the files
    python data/talking_digits/make.py --check

The same version of espeak-ng gives the same bytes on every run; the first file records
that version with everything else that was used, under the key `recipe`. Needs the
program `espeak-ng`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mtmm_lib.data.sound import LogMel
from mtmm_lib.data.talking_digits import ALOUD, NOISE, talking_digits

FILE = Path(__file__).with_name("talking_digits.npz")
HEARD = FILE.with_name("aloud.npz")

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
#: Accent → espeak-ng's name of it. "en-gb" would be the obvious name of the first, but
#: this version of the program then ignores the voice variant without a word: ten
#: speakers would be one. "en" is the accent that the program itself calls "English
#: (Great Britain)".
ACCENTS = {
    "British": "en",
    "American": "en-us",
    "Scottish": "en-gb-scotland",
    "Received Pronunciation": "en-gb-x-rp",
    "Lancaster": "en-gb-x-gbclan",
    "West Midlands": "en-gb-x-gbcwmd",
    "Caribbean": "en-029",
}
#: The program's plain male and female voices. Its m4 and f4 are left out: they speak a
#: class slower than the others at the same setting, so that the rate of a new speaker
#: could not be told.
VOICES = ("m1", "m2", "m3", "m5", "m6", "m7", "f1", "f2", "f3", "f5")
RATES = {"slow": 125, "medium": 170, "fast": 230}  # words per minute
# the program's own scale, relative to the voice
PITCHES = {
    "low": 0,
    "middle": 50,
    "high": 99,
}

#: At the rate of espeak-ng's voices, windows of 70 ms, one every 23 ms.
LOG_MEL = LogMel(
    sample_rate=22_050, window=1536, hop=512, fft=2048, lowest=60.0, highest=8000.0
)
FRAMES = 32


def espeak_version() -> str:
    """Version of the program that is installed, as in "1.51"; empty where there is
    none."""
    try:
        text = subprocess.run(
            ["espeak-ng", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        return ""
    return re.search(r"text-to-speech: (\S+)", text).group(1)


def speak(voice: str, accent: str, rate: str, pitch: str, word: str) -> np.ndarray:
    """The waveform, int16 `[samples]`, without the pause that the program adds to a
    sentence."""
    sound = ["-v", f"{ACCENTS[accent]}+{voice}", "-p", str(PITCHES[pitch])]
    command = ["espeak-ng", "-z", *sound, "-s", str(RATES[rate]), "--stdout", word]
    wave = subprocess.run(command, capture_output=True, check=True).stdout
    # The header is 44 bytes; its size fields are wrong when the program writes to a
    # pipe.
    return np.frombuffer(wave[44 : len(wave) - len(wave) % 2], dtype="<i2")


def combinations() -> list[tuple[str, str, str, str, str]]:
    """Every (voice, accent, rate, pitch, word), in the order of the file."""
    return list(itertools.product(VOICES, ACCENTS, RATES, PITCHES, WORDS))


def clips(
    which: Sequence[tuple[str, str, str, str, str]],
) -> tuple[np.ndarray, np.ndarray]:
    """Speaks the given combinations: log-mel uint8 `[N, FRAMES, BANDS]` and frames
    filled, uint8 `[N]`."""
    with ThreadPoolExecutor(2) as pool:
        made = [LOG_MEL(wave) for wave in pool.map(lambda clip: speak(*clip), which)]
    frames = np.array([len(levels) for levels in made])
    if frames.max() > FRAMES:
        raise ValueError(
            f"a clip fills {frames.max()} frames, and there is room for {FRAMES}"
        )
    return np.stack(
        [np.pad(x, ((0, FRAMES - len(x)), (0, 0))) for x in made]
    ), frames.astype(np.uint8)


def build() -> dict[str, np.ndarray]:
    """The arrays of the file: each different log-mel once.

    A clip that two accents make alike is kept with accent −1: nobody can hear which of
    them it is.

    Raises:
        ValueError: when clips of different voices, rates, pitches or words are alike.
    """
    which = combinations()
    log_mels, frames = clips(which)
    names = [VOICES, tuple(ACCENTS), tuple(RATES), tuple(PITCHES), WORDS]
    labels = np.array(
        [[n.index(v) for n, v in zip(names, clip, strict=True)] for clip in which],
        np.int8,
    )

    _, first, group = np.unique(
        log_mels.reshape(len(which), -1), axis=0, return_index=True, return_inverse=True
    )
    for g, kept in enumerate(first):
        alike = labels[group.ravel() == g]
        if (alike[:, [0, 2, 3, 4]] != labels[kept, [0, 2, 3, 4]]).any():
            raise ValueError(f"clips that should differ are alike: {alike.tolist()}")
        if (alike[:, 1] != labels[kept, 1]).any():
            labels[kept, 1] = -1
    kept = np.sort(first)
    recipe = {
        "tool": f"espeak-ng {espeak_version()}",
        "arguments": "-z -v ACCENT+VOICE -s RATE -p PITCH --stdout WORD",
        "words": WORDS,
        "voices": VOICES,
        "accents": ACCENTS,
        "rates": RATES,
        "pitches": PITCHES,
        "sample_rate_hz": LOG_MEL.sample_rate,
        "window": LOG_MEL.window,
        "hop": LOG_MEL.hop,
        "fft": LOG_MEL.fft,
        "lowest_hz": LOG_MEL.lowest,
        "highest_hz": LOG_MEL.highest,
        "range_db": LOG_MEL.range_db,
        "step_db": LOG_MEL.step_db,
    }
    columns = dict(
        zip(("voice", "accent", "rate", "pitch", "digit"), labels[kept].T, strict=True)
    )
    return {
        "log_mel": log_mels[kept],
        "frames": frames[kept],
        **columns,
        "recipe": np.array(json.dumps(recipe)),
    }


def halved(wave: np.ndarray) -> np.ndarray:
    """Float `[n]` → uint8 at half the rate. All but the loudest in a thousand samples
    fit into 8 bits, those are cut."""
    spectrum = np.fft.rfft(wave, 2 * (len(wave) // 2))
    fewer = np.fft.irfft(spectrum[: len(spectrum) // 2 + 1], len(wave) // 2)
    loud = np.quantile(np.abs(fewer), 0.999)
    return np.rint(128 + 127 * np.clip(fewer / loud, -1, 1)).astype(np.uint8)


def aloud(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The six samples of `ALOUD` as sounds, clean and noisy, with the sample rate.

    The noise is that of the loader on the same samples: by the same random numbers,
    in decibels, the bands of the sound are turned up and down, at half the strength.
    An ear hears loudness: at full strength a few loud spots would drown the rest.
    """
    settings = dict(tasks=("digit",), modalities=("audio",), seed=0)
    rows = list(ALOUD)
    clean = talking_digits(**settings).test.inputs["audio"][rows].numpy()
    noisy = talking_digits(**settings, **NOISE).test.inputs["audio"][rows].numpy()
    levels = arrays["log_mel"].astype(np.float32) * LOG_MEL.step_db
    decibels = 0.5 * (noisy - clean) * levels.std()
    pictures = (levels - levels.mean()) / levels.std()
    made: dict[str, np.ndarray] = {"sample_rate": np.array(LOG_MEL.sample_rate // 2)}
    for i, (picture, turns) in enumerate(zip(clean, decibels, strict=True)):
        clip = int(np.flatnonzero((pictures == picture).all((1, 2)))[0])
        labels = [
            int(arrays[key][clip]) for key in ("voice", "accent", "rate", "pitch")
        ]
        lists = (VOICES, tuple(ACCENTS), tuple(RATES), tuple(PITCHES))
        setting = [names[k] for names, k in zip(lists, labels, strict=True)]
        wave = speak(*setting, WORDS[arrays["digit"][clip]])
        length = (FRAMES - 1) * LOG_MEL.hop + LOG_MEL.window
        hiss = np.random.default_rng(i).standard_normal(length)
        made[f"clean {i}"] = halved(wave / 2.0**15)
        made[f"noisy {i}"] = halved(LOG_MEL.turned(wave, turns, hiss))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with the file, write nothing"
    )
    arguments = parser.parse_args()
    arrays = build()
    if not arguments.check:
        np.savez_compressed(FILE, **arrays)
        print(
            f"{FILE.name}: {len(arrays['log_mel'])} of {len(combinations())} clips, "
            f"{FILE.stat().st_size} bytes"
        )
    # the loader reads the file that stands there by now
    heard = aloud(arrays)
    if not arguments.check:
        np.savez_compressed(HEARD, **heard)
        print(f"{HEARD.name}: {HEARD.stat().st_size} bytes")
        return
    different = []
    for file, made in ((FILE, arrays), (HEARD, heard)):
        with np.load(file) as stored:
            different += [
                f"{key} of {file.name}"
                for key in made
                if not np.array_equal(made[key], stored[key])
            ]
    raise SystemExit(f"these arrays differ: {different}" if different else 0)


if __name__ == "__main__":
    main()
