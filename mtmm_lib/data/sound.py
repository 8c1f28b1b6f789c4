r"""Sounds as log-mel pictures, and waveforms from and as WAV files.

The front end of Talking Digits and of the spoken digits of FSDD. It looks at one
waveform and at nothing else, no statistics of a data set: what a model was trained on
can be made of any recording.
"""

from __future__ import annotations

import io
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
        power = self._power(self._frames(samples / 2.0**15, count))
        decibels = 10 * np.log10(np.maximum(power, 1e-12))
        # nothing is loud in silence
        loudest = decibels.max() if power.max() > 1e-12 else np.inf
        above: np.ndarray = np.maximum(decibels - loudest + self.range_db, 0)
        return np.rint(above / self.step_db).astype(np.uint8)

    def turned(
        self, samples: np.ndarray, decibels: np.ndarray, hiss: np.ndarray
    ) -> np.ndarray:
        """A waveform with each band of each frame turned up or down.

        Under it lies the hiss, as loud in the mean band as the quietest level that the
        picture knows, so that silence can be turned up, too. Frames overlap, and what
        neighbours are told is averaged: the picture of the result follows `decibels`
        roughly.

        Args:
            samples: int16 `[n]`.
            decibels: float `[frames, bands]`, for as many frames as the result has.
            hiss: standard normal numbers, as many as the result has samples:
                `(frames - 1) * hop + window`.

        Returns:
            the waveform, float, of the length of the hiss.
        """
        count, rate = len(decibels), self.sample_rate
        signal = np.zeros(len(hiss))
        signal[: len(samples)] = samples / 2.0**15
        window = np.hanning(self.window)
        quietest = self._power(self._frames(signal, count)).max()
        quietest *= 10 ** (-self.range_db / 10)
        signal += hiss * np.sqrt(quietest / (window**2).sum())

        places = np.fft.rfftfreq(self.fft, 1 / rate)
        middles = self.bank @ places  # of the bands, in Hz
        gains = np.stack([np.interp(places, middles, each) for each in decibels])
        spectra = np.fft.rfft(self._frames(signal, count) * window, self.fft)
        pieces = np.fft.irfft(spectra * 10 ** (gains / 20), self.fft)[:, : self.window]
        turned, weight = np.zeros(len(hiss)), np.full(len(hiss), 0.05)
        for i, piece in enumerate(pieces):
            here = slice(i * self.hop, i * self.hop + self.window)
            turned[here] += piece * window
            weight[here] += window**2
        result: np.ndarray = turned / weight
        return result

    def _frames(self, signal: np.ndarray, count: int) -> np.ndarray:
        missing = max(0, (count - 1) * self.hop + self.window - len(signal))
        every = np.lib.stride_tricks.sliding_window_view(
            np.pad(signal, (0, missing)), self.window
        )
        frames: np.ndarray = every[:: self.hop][:count]
        return frames

    def _power(self, frames: np.ndarray) -> np.ndarray:
        spectra = np.fft.rfft(frames * np.hanning(self.window), self.fft)
        power: np.ndarray = np.abs(spectra) ** 2 @ self.bank.T
        return power


def wav_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """A WAV file of one channel and 8 bits, which every browser plays, from samples
    uint8 `[n]` with 128 for silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(sample_rate)
        out.writeframes(samples.astype(np.uint8).tobytes())
    return file.getvalue()


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
