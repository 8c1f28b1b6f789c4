"""Sounds that travel with the page, each with a label, all with words."""

import base64
import io
import re
import wave

import numpy as np
import pytest

from mtmm_lib.data.sound import wav_bytes
from mtmm_lib.lesson import listen

BEEP = wav_bytes(np.full(800, 128), 11_025)


def test_each_sound_has_a_player_with_its_label(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda it: shown.append(it))
    louder = wav_bytes(np.full(80, 200), 8_000)
    listen({"clean": BEEP, "<noisy>": louder}, alt="A beep, then & a buzz.")
    (output,) = shown
    players = re.findall(r"<audio controls.*?</audio>", output.html)
    assert len(players) == 2
    for player, label, data in zip(
        players, ("clean", "&lt;noisy&gt;"), (BEEP, louder), strict=True
    ):
        assert f'aria-label="{label}"' in player
        (code,) = re.findall(r"base64,([^\"]+)", player)
        assert base64.b64decode(code) == data
    folded = re.search(r"<details.*?</details>", output.html, re.DOTALL)[0]
    assert "A beep, then &amp; a buzz." in folded and " open" not in folded
    assert "A beep, then & a buzz." in output.plain and "clean" in output.plain


@pytest.mark.parametrize(
    "sounds, alt, words",
    [
        ({}, "A beep.", "at least one sound"),
        ({"a": BEEP}, " ", "text alternative"),
        ({"a": b"OggS" + BEEP[4:]}, "A beep.", "'a' has to be a WAV file"),
        ({"a": wav_bytes(np.zeros(60_000), 8_000)}, "Long.", "60,044 bytes"),
    ],
)
def test_what_cannot_be_played_is_refused(sounds, alt, words):
    with pytest.raises(ValueError, match=words):
        listen(sounds, alt=alt)


def test_a_wav_file_holds_what_went_in():
    samples = np.array([0, 128, 255, 3])
    with wave.open(io.BytesIO(wav_bytes(samples, 8_000))) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 1)
        assert file.getframerate() == 8_000
        assert list(file.readframes(9)) == [0, 128, 255, 3]
