"""FSDD: splits without leakage, pairs that agree, a front end that needs one recording
and nothing else."""

import hashlib
import importlib
import io
import os
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mtmm_lib.data import fsdd, registry
from mtmm_lib.data.fsdd import AUDIO_SHAPE, LOG_MEL, SPEAKERS, TASKS, speech

# the package's attribute is the function
loader = importlib.import_module("mtmm_lib.data.fsdd")
seeds = pytest.mark.parametrize("seed", range(3))
SETS, REAL = registry.SETS, os.environ.get("MTMM_DATA")


def wav(samples):
    with io.BytesIO() as buffer:
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(samples.tobytes())
        return buffer.getvalue()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A stand-in for the set, of noises that all differ: (digit, speaker, number) →
    samples."""
    rng = np.random.default_rng(0)
    made = {
        (d, s, k): rng.integers(-9000, 9000, rng.integers(900, 3000)).astype("<i2")
        for d in range(10)
        for s in range(6)
        for k in range(50)
    }
    root = tmp_path_factory.mktemp("sets")
    (root / "fsdd" / "recordings").mkdir(parents=True)
    lines = []
    for (d, s, k), samples in made.items():
        path, content = f"recordings/{d}_{SPEAKERS[s]}_{k}.wav", wav(samples)
        (root / "fsdd" / path).write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {path}\n")
    (root / "manifest").write_text("".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTMM_DATA", str(root))
        stand_in = replace(registry.SETS["fsdd"], manifest=root / "manifest")
        patch.setattr(registry, "SETS", registry.SETS | {"fsdd": stand_in})
        loader._source.cache_clear()
        yield made
    loader._source.cache_clear()


@pytest.fixture(scope="module")
def names(recordings):
    """What `speech` makes of each recording, as bytes → (digit, speaker, number)."""
    return {speech(samples)[0].tobytes(): name for name, samples in recordings.items()}


def rows(tensor):
    return [row.numpy().tobytes() for row in tensor]


@seeds
def test_no_image_no_recording_and_no_speaker_is_in_two_splits(seed, names):
    splits = fsdd(seed=seed)
    assert [len(batch) for batch in splits] == [1000, 300, 400]
    heard = [{names[row] for row in rows(batch.inputs["audio"])} for batch in splits]
    seen = [set(rows(batch.inputs["image"])) for batch in splits]
    for group in (heard, seen):
        assert [len(part) for part in group] == [1000, 300, 400], "none comes twice"
        assert len(set.union(*group)) == 1700
    speakers = [{speaker for _, speaker, _ in part} for part in heard]
    assert [len(part) for part in speakers] == [4, 1, 1] and len(
        set.union(*speakers)
    ) == 6


@seeds
def test_pairs_agree_and_digits_are_equally_frequent(seed, names, recordings):
    written = load_digits()
    number = {
        (x / 16).astype(np.float32).tobytes(): i for i, x in enumerate(written.images)
    }
    ink = written.images.mean((1, 2))
    for batch in fsdd(seed=seed):
        image = [number[row] for row in rows(batch.inputs["image"])]
        heard = [names[row] for row in rows(batch.inputs["audio"])]
        digit = batch.targets["digit"].tolist()
        assert np.bincount(digit).tolist() == [len(batch) // 10] * 10
        assert digit == written.target[image].tolist() == [d for d, _, _ in heard]
        assert batch.targets["speaker"].tolist() == [s for _, s, _ in heard]
        assert batch.targets["parity"].tolist() == [d % 2 for d in digit]
        assert batch.targets["size"].tolist() == [int(d >= 5) for d in digit]
        expected = (ink[image] - ink.mean()) / ink.std()
        np.testing.assert_allclose(batch.targets["ink"].numpy(), expected, atol=1e-4)
        assert batch.lengths["audio"].tolist() == [
            speech(recordings[name])[1] for name in heard
        ]
        assert batch.inputs["audio"].shape[1:] == AUDIO_SHAPE and list(
            batch.targets
        ) == list(TASKS)


def test_order_tells_nothing(recordings):
    """Neither digits nor speakers stand together, so that any part of a split is a fair
    sample of it."""
    train = fsdd().train
    first = train.targets["digit"][:500].bincount()
    # 5 standard deviations of a random order are 18
    assert (first - 50).abs().max() < 25
    assert len(train.targets["speaker"][:30].unique()) == 4


def test_a_seed_gives_the_same_and_another_one_other_speakers(recordings):
    knobs = dict(
        image_noise=0.2, audio_noise=0.5, missing={"audio": 0.3}, labels_per_class=5
    )
    a, b = fsdd(seed=1, **knobs), fsdd(seed=1, **knobs)
    for one, other in zip(a, b, strict=True):
        for group in ("inputs", "targets", "present", "lengths"):
            for key, value in getattr(one, group).items():
                assert torch.equal(
                    value.nan_to_num(-7.0), getattr(other, group)[key].nan_to_num(-7.0)
                )
    held_out = {
        int(fsdd(seed=seed, tasks=["speaker"]).test.targets["speaker"][0])
        for seed in range(30)
    }
    assert held_out == set(range(6)), "everybody has a turn"


def test_dials_are_those_of_talking_digits(recordings):
    clean, noisy = (
        fsdd(seed=3),
        fsdd(seed=3, audio_noise=0.5, missing={"audio": 0.4}, labels_per_class=2),
    )
    here = noisy.test.present["audio"]
    assert here.sum() == 240 and not noisy.test.inputs["audio"][~here].any()
    noise = (noisy.test.inputs["audio"] - clean.test.inputs["audio"])[here]
    assert abs(noise.std() - 0.5) < 0.01 and noisy.test.inputs["image"].equal(
        clean.test.inputs["image"]
    )
    kept = noisy.train.targets["speaker"] >= 0
    assert noisy.train.targets["digit"][kept].bincount().tolist() == [2] * 10
    assert fsdd(tasks=["ink"], modalities=["image"]).train.inputs.keys() == {"image"}
    with pytest.raises(
        ValueError, match="tasks: unknown .'accent'.; known are .'digit'"
    ):
        fsdd(tasks=["accent"])


def test_without_the_recordings_the_error_says_what_to_do(
    recordings, monkeypatch, tmp_path
):
    monkeypatch.setenv("MTMM_DATA", str(tmp_path))
    loader._source.cache_clear()
    with pytest.raises(registry.DataError, match="unset MTMM_DATA to download"):
        fsdd()
    monkeypatch.undo()
    assert len(fsdd().train) == 1000, "a failure is not remembered"


# The front end: decibels below the loudest cell, minus 13, in units of 18.

NOISE = np.random.default_rng(1).integers(-9000, 9000, 8000).astype(np.int16)
SILENCE = np.zeros(4000, np.int16)
FLOOR, LOUDEST = -13 / 18, (60 - 13) / 18


def test_silence_around_a_word_is_cut_off():
    bare, frames = speech(NOISE[:3000])
    padded, more = speech(np.concatenate([SILENCE, NOISE[:3000], SILENCE]))
    assert frames <= more <= frames + 4, "at most the frames that the word reaches into"
    assert bare.dtype == np.float32 and bare.max() == pytest.approx(LOUDEST)
    assert (bare[frames:] == np.float32(FLOOR)).all() and (
        padded[more:] == np.float32(FLOOR)
    ).all()
    assert (bare[:frames].max(1) > FLOOR + 1).all(), "and nothing of the word is lost"


def test_of_a_long_recording_the_beginning_stays():
    picture, frames = speech(NOISE)
    assert frames == AUDIO_SHAPE[0]
    levels = LOG_MEL(NOISE)[: AUDIO_SHAPE[0]]
    np.testing.assert_allclose(picture, (levels / 2 - 13) / 18, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [SILENCE, SILENCE[:0]], ids=["silence", "nothing"])
def test_nothing_to_hear_fills_no_frame(samples):
    picture, frames = speech(samples)
    assert frames == 0 and (picture == np.float32(FLOOR)).all()


def test_loudness_is_lost():
    assert np.array_equal(
        speech(NOISE[:3000] // 8)[0], speech(NOISE[:3000] // 8 * 8)[0]
    )


@pytest.mark.skipif(not REAL, reason="MTMM_DATA names no folder with the real sets")
def test_the_real_recordings(monkeypatch):
    monkeypatch.setattr(registry, "SETS", SETS)
    monkeypatch.setenv("MTMM_DATA", REAL)
    source = loader._source.__wrapped__()
    audio = source["audio"].reshape(3000, -1)
    assert len(np.unique(audio, axis=0)) == 3000
    assert abs(audio.mean()) < 0.05 and abs(audio.std() - 1) < 0.05
    assert 0 < source["frames"].min() and source["frames"].max() == 32
    assert (source["frames"] == 32).mean() < 0.01, "hardly any word is cut"
    counts = np.zeros((10, 6), int)
    np.add.at(counts, (source["digit"], source["speaker"]), 1)
    assert (counts == 50).all()
