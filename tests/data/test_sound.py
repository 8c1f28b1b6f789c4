"""The log-mel front end against tones of known pitch and loudness; WAV files against
what was written."""

import wave

import numpy as np
import pytest

from mtmm_lib.data.fsdd import LOG_MEL
from mtmm_lib.data.sound import LogMel, read_wav

VOICES = LogMel(
    sample_rate=22_050, window=1536, hop=512, fft=2048, lowest=60.0, highest=8000.0
)
every_front_end = pytest.mark.parametrize(
    "log_mel", [VOICES, LOG_MEL], ids=["22 kHz", "8 kHz"]
)


def tone(log_mel, hertz, seconds=0.5, amplitude=20_000):
    time = np.arange(int(seconds * log_mel.sample_rate)) / log_mel.sample_rate
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


@every_front_end
@pytest.mark.parametrize("hertz", [300.0, 1000.0, 3000.0])
def test_a_tone_is_loudest_in_the_band_whose_centre_is_nearest_in_mel(log_mel, hertz):
    np.testing.assert_allclose(log_mel.bank.sum(1), 1)
    mel = 2595 * np.log10(1 + np.array([log_mel.lowest, log_mel.highest, hertz]) / 700)
    centres = np.linspace(*mel[:2], log_mel.bands + 2)[1:-1]
    levels = log_mel(tone(log_mel, hertz))
    assert (
        levels.dtype == np.uint8
        and (levels.argmax(1) == np.abs(centres - mel[2]).argmin()).all()
    )
    assert levels.max() == log_mel.range_db / log_mel.step_db


@every_front_end
def test_half_the_amplitude_is_six_decibels_less(log_mel):
    loud = tone(log_mel, 1000, log_mel.window / log_mel.sample_rate)
    # so that the second tone fills a frame exactly
    gap = -2 * len(loud) % log_mel.hop + len(loud)
    levels = log_mel(np.concatenate([loud, np.zeros(gap, np.int16), loud // 2]))
    # steps of half a decibel
    assert levels[0].max() == 120 and levels[-1].max() == 120 - 12


@every_front_end
@pytest.mark.parametrize("scale", [1, 100])
def test_loudness_makes_no_difference(log_mel, scale):
    quiet = np.random.default_rng(0).integers(-300, 300, 5000).astype(np.int16)
    assert np.array_equal(log_mel(quiet), log_mel(scale * quiet))


@every_front_end
def test_how_many_frames_there_are(log_mel):
    noise = (
        np.random.default_rng(0)
        .integers(-300, 300, 10 * log_mel.window)
        .astype(np.int16)
    )
    for size in (0, 1, log_mel.window - 1, log_mel.window):
        assert log_mel(noise[:size]).shape == (1, log_mel.bands)
    # the last frame is filled up with silence
    assert len(log_mel(noise[: log_mel.window + 1])) == 2
    assert len(log_mel(noise[: log_mel.window + 3 * log_mel.hop])) == 4


@every_front_end
@pytest.mark.parametrize("size", [0, 5000])
def test_silence_has_no_loud_cell(log_mel, size):
    assert not log_mel(np.zeros(size, np.int16)).any()


def write(path, samples, channels=1, width=2, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def test_a_wav_file_is_read_back(tmp_path):
    samples = np.array([0, 1, -1, 32767, -32768, 258], "<i2")
    write(tmp_path / "a.wav", samples, rate=11_025)
    got, rate = read_wav(tmp_path / "a.wav")
    assert got.dtype == np.int16 and got.tolist() == samples.tolist() and rate == 11_025


@pytest.mark.parametrize(("channels", "width"), [(2, 2), (1, 1)])
def test_another_kind_of_wav_file_is_refused(tmp_path, channels, width):
    write(tmp_path / "a.wav", np.zeros(8, np.uint8), channels, width)
    with pytest.raises(
        ValueError,
        match=f"a.wav has {channels} channels of {8 * width} bits, expected one",
    ):
        read_wav(tmp_path / "a.wav")
