r"""Sounds as log-mel pictures, and WAV files as waveforms.

The front end of Talking Digits and of the spoken digits of FSDD. It looks at one
waveform and at nothing else, no statistics of a data set: what a model was trained on
can be made of any recording.
"""

from __future__ import annotations

import os
import wave
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class LogMel:
    r"""Waveform → log-mel levels, as `log_mel(samples)`: int16 `[n]` → uint8
    `[frames, bands]`.

    Frames of `window` samples, one every `hop`, under a Hann window; the power of their
    Fourier transform of length `fft`, averaged over triangular bands, evenly spaced in
    mel, $m = 2595 \log_{10}(1 + f/700)$; decibels below the loudest cell of all, cut at
    `range_db`, in steps of `step_db`. So the level of the loudest cell is
    `range_db / step_db`, and level 0 is `range_db` below it, or silence.

    Args:
        sample_rate: in Hz.
        window, hop, fft: in samples.
        lowest, highest: the ends of the bands, in Hz.
        bands: how many.
        range_db, step_db: in decibels.
    """

    sample_rate: int
    window: int
    hop: int
    fft: int
    lowest: float
    highest: float
    bands: int = 24
    range_db: float = 60.0
    step_db: float = 0.5

    @cached_property
    def bank(self) -> np.ndarray:
        """Filters `[bands, fft // 2 + 1]`. Each sums to one: a band holds the mean
        power of its bins."""
        low, high = (2595 * np.log10(1 + f / 700) for f in (self.lowest, self.highest))
        edges = 700 * (10 ** (np.linspace(low, high, self.bands + 2) / 2595) - 1)
        left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        f = np.fft.rfftfreq(self.fft, 1 / self.sample_rate)
        bank: np.ndarray = np.maximum(
            0, np.minimum((f - left) / (centre - left), (right - f) / (right - centre))
        )
        bank /= bank.sum(1, keepdims=True)
        return bank

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        count = 1 + max(0, -(-(len(samples) - self.window) // self.hop))
        missing = max(0, (count - 1) * self.hop + self.window - len(samples))
        padded = np.pad(samples / 2.0**15, (0, missing))
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.window)[
            :: self.hop
        ][:count]
        power = (
            np.abs(np.fft.rfft(frames * np.hanning(self.window), self.fft)) ** 2
            @ self.bank.T
        )
        decibels = 10 * np.log10(np.maximum(power, 1e-12))
        # nothing is loud in silence
        loudest = decibels.max() if power.max() > 1e-12 else np.inf
        above: np.ndarray = np.maximum(decibels - loudest + self.range_db, 0)
        return np.rint(above / self.step_db).astype(np.uint8)


def read_wav(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """A WAV file of one channel and 16 bits → its samples, int16 `[n]`, and their rate
    in Hz.

    Raises:
        ValueError: for any other kind of WAV file.
    """
    with wave.open(os.fspath(path)) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise ValueError(
                f"{path} has {file.getnchannels()} channels of "
                f"{8 * file.getsampwidth()} bits, expected one channel of 16 bits"
            )
        return np.frombuffer(
            file.readframes(file.getnframes()), "<i2"
        ), file.getframerate()
