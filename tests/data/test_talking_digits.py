"""Talking Digits: splits without leakage, knobs that turn one thing only, a file that
its recipe makes."""

import importlib.util
import io
import json
import subprocess
import sys
import wave

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from mtmm_lib.data import Splits, talking_digits
from mtmm_lib.data.files import data_file
from mtmm_lib.data.talking_digits import (
    ALOUD,
    CLASSES,
    MODALITIES,
    TASKS,
    TEXT_LENGTH,
    VOCABULARY,
    aloud,
)
from mtmm_lib.data.text import decode

ALL = dict(modalities=MODALITIES)
seeds = pytest.mark.parametrize("seed", range(3))


@pytest.fixture(scope="module")
def stored():
    with np.load(data_file("talking_digits", "talking_digits.npz")) as file:
        return dict(file)


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location(
        "make", data_file("talking_digits", "make.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(tensor):
    return [row.numpy().tobytes() for row in tensor]


def same(a, b):
    return all(
        torch.equal(torch.nan_to_num(x, -7.0), torch.nan_to_num(y, -7.0))
        if x.is_floating_point()
        else x.equal(y)
        for one, other in zip(a, b, strict=True)
        for group in ("inputs", "targets", "present", "lengths")
        for x, y in zip(
            getattr(one, group).values(), getattr(other, group).values(), strict=True
        )
    )


def clip_numbers(batch, stored):
    """Which clip of the file each sample holds: recomputed from the file, not asked
    from the loader."""
    levels = stored["log_mel"].astype(np.float32) * np.float32(0.5)
    number = {
        row.tobytes(): i
        for i, row in enumerate((levels - levels.mean()) / levels.std())
    }
    return np.array([number[row] for row in rows(batch.inputs["audio"])])


@seeds
def test_no_image_no_clip_and_no_speaker_is_in_two_splits(seed, stored):
    splits = talking_digits(seed=seed)
    assert isinstance(splits, Splits) and [len(b) for b in splits] == [1000, 300, 497]
    images = [set(rows(b.inputs["image"])) for b in splits]
    clips = [set(clip_numbers(b, stored)) for b in splits]
    speakers = [set(stored["voice"][list(c)]) for c in clips]
    for group, together in ((images, 1797), (clips, 1797), (speakers, 10)):
        # Disjoint, and no image or clip twice within a split either.
        assert sum(map(len, group)) == len(set.union(*group)) == together
    assert all(set(b.targets["accent"].tolist()) >= set(range(7)) for b in splits)


@seeds
def test_pairs_agree_with_the_sources(seed, stored):
    digits = load_digits()
    number = {
        (image / 16).astype(np.float32).tobytes(): i
        for i, image in enumerate(digits.images)
    }
    ink = digits.images.mean((1, 2))
    ink = (ink - ink.mean()) / ink.std()
    for batch in talking_digits(seed=seed, **ALL):
        clip = clip_numbers(batch, stored)
        image = np.array([number[row] for row in rows(batch.inputs["image"])])
        assert (digits.target[image] == batch.targets["digit"].numpy()).all()
        for task in ("digit", "accent", "rate", "pitch"):
            assert (stored[task][clip] == batch.targets[task].numpy()).all()
        np.testing.assert_allclose(batch.targets["ink"].numpy(), ink[image], atol=1e-4)
        assert (batch.lengths["audio"].numpy() == stored["frames"][clip]).all()
        for ids, length, digit in zip(
            batch.inputs["text"],
            batch.lengths["text"],
            batch.targets["digit"].tolist(),
            strict=True,
        ):
            words = decode(ids, VOCABULARY).split()
            assert len(words) == length and (ids[length:] == 0).all()
            allowed = {
                CLASSES["digit"][digit],
                CLASSES["parity"][digit % 2],
                "large" if digit >= 5 else "small",
            }
            assert set(words) <= allowed | {"a", "an", "the", "digit"}
            assert batch.inputs["text"].shape[1] == TEXT_LENGTH


def test_derived_labels_and_class_counts():
    for batch in talking_digits():
        digit = batch.targets["digit"]
        assert batch.targets["parity"].equal(digit % 2)
        assert batch.targets["size"].equal((digit >= 5).long())
        for task, names in CLASSES.items():
            values = batch.targets[task]
            assert set(values.tolist()) - {-1} == set(range(len(names)))
            assert task == "accent" or values.min() == 0
    assert set(TASKS) == {*CLASSES, "ink"}


def test_silence_follows_the_clip():
    for batch in talking_digits():
        beyond = torch.arange(32) >= batch.lengths["audio"].unsqueeze(1)
        silence = batch.inputs["audio"].min()
        assert (batch.inputs["audio"][beyond] == silence).all()
        assert (batch.inputs["audio"][~beyond] > silence).any()


def test_audio_is_standardised():
    audio = torch.cat(
        [b.inputs["audio"] for seed in range(3) for b in talking_digits(seed=seed)]
    )
    assert abs(audio.mean()) < 0.03 and abs(audio.std() - 1) < 0.03


def test_a_seed_gives_the_same_splits_and_another_one_others():
    knobs = dict(
        image_noise=0.3,
        audio_noise=1.0,
        missing={"audio": 0.3},
        labels_per_class=5,
        **ALL,
    )
    assert same(talking_digits(seed=4, **knobs), talking_digits(seed=4, **knobs))
    assert not same(talking_digits(seed=4, **knobs), talking_digits(seed=5, **knobs))


def test_the_process_does_not_matter():
    code = (
        "import hashlib, torch; from mtmm_lib.data import talking_digits\n"
        "s = talking_digits(seed=1, image_noise=.2, missing={'audio': .5}, "
        "labels_per_class=3)\n"
        "parts = [v for b in s for g in (b.inputs, b.targets, b.present) for v in "
        "g.values()]\n"
        "print(hashlib.sha256(b''.join(v.numpy().tobytes() for v in "
        "parts)).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        for _ in range(2)
    ]
    assert runs[0].stdout and runs[0].stdout == runs[1].stdout, runs[0].stderr


def test_what_a_caller_changes_does_not_reach_the_next_one():
    before = talking_digits(seed=0, **ALL)
    spoiled = talking_digits(seed=0, **ALL)
    for batch in spoiled:
        for tensor in (
            *batch.inputs.values(),
            *batch.targets.values(),
            *batch.lengths.values(),
        ):
            tensor.zero_()
    assert same(before, talking_digits(seed=0, **ALL))


def test_every_knob_turns_one_thing_only():
    plain = talking_digits(seed=2, **ALL)
    few = talking_digits(seed=2, labels_per_class=5, **ALL)
    assert all(
        a.inputs[m].equal(b.inputs[m])
        for a, b in zip(plain, few, strict=True)
        for m in MODALITIES
    )
    noisy = talking_digits(seed=2, image_noise=0.5, missing={"text": 0.5}, **ALL)
    for a, b in zip(plain, noisy, strict=True):
        assert a.inputs["audio"].equal(b.inputs["audio"])
        assert a.inputs["text"][b.mask("text")].equal(b.inputs["text"][b.mask("text")])
        assert all(a.targets[task].equal(b.targets[task]) for task in TASKS)
    two = talking_digits(seed=2, tasks=("ink", "digit"), modalities=("audio",))
    assert list(two.train.targets) == ["ink", "digit"] and list(two.train.inputs) == [
        "audio"
    ]
    assert two.test.inputs["audio"].equal(plain.test.inputs["audio"])


@pytest.mark.parametrize("name", ["image", "audio"])
def test_noise_has_the_deviation_asked_for_and_differs_between_splits(name):
    clean, noisy = (
        talking_digits(seed=1),
        talking_digits(seed=1, **{f"{name}_noise": 0.7}),
    )
    noises = [
        (b.inputs[name] - a.inputs[name]).flatten()
        for a, b in zip(clean, noisy, strict=True)
    ]
    for noise in noises:
        # A standard deviation over n numbers is known to 1 / sqrt(2n) of itself.
        assert abs(noise.std() / 0.7 - 1) < 5 / (2 * len(noise)) ** 0.5
        assert abs(noise.mean()) < 5 * 0.7 / len(noise) ** 0.5
    n = min(map(len, noises))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (
            abs(torch.corrcoef(torch.stack([noises[i][:n], noises[j][:n]]))[0, 1])
            < 5 / n**0.5
        )
    twice = talking_digits(seed=1, **{f"{name}_noise": 1.4})
    torch.testing.assert_close(
        twice.test.inputs[name] - clean.test.inputs[name],
        2 * (noisy.test.inputs[name] - clean.test.inputs[name]),
        atol=1e-5,
        rtol=1e-5,
    )


def labelled(values):
    return values.isfinite() if values.is_floating_point() else values >= 0


def test_labels_per_class_as_a_number_keeps_whole_samples():
    splits = talking_digits(seed=3, labels_per_class=5)
    full = talking_digits(seed=3)
    keep = labelled(splits.train.targets["digit"])
    assert full.train.targets["digit"][keep].bincount().tolist() == [5] * 10
    for task in TASKS:
        expected = keep & labelled(full.train.targets[task])
        assert labelled(splits.train.targets[task]).equal(expected)
        assert splits.train.targets[task][expected].equal(
            full.train.targets[task][expected]
        )
        assert splits.valid.targets[task].equal(full.valid.targets[task])
        assert splits.test.targets[task].equal(full.test.targets[task])


def test_labels_per_class_as_a_dict_is_per_task_and_nested():
    few, more = (
        talking_digits(labels_per_class={"digit": n, "accent": n, "ink": n}).train
        for n in (2, 7)
    )
    assert (
        few.targets["digit"][labelled(few.targets["digit"])].bincount().tolist()
        == [2] * 10
    )
    assert (
        few.targets["accent"][labelled(few.targets["accent"])].bincount().tolist()
        == [2] * 7
    )
    assert labelled(few.targets["ink"]).equal(labelled(few.targets["digit"]))
    assert labelled(few.targets["parity"]).all()
    for task in ("digit", "accent", "ink"):
        assert labelled(more.targets[task])[labelled(few.targets[task])].all()
    none = talking_digits(labels_per_class=0).train
    assert not any(labelled(values).any() for values in none.targets.values())


@given(
    rates=st.tuples(*[st.floats(0, 1)] * 3).filter(lambda r: sum(r) <= 2),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=20, deadline=None)
def test_missing_rates_are_met_and_every_sample_keeps_a_modality(rates, seed):
    missing = dict(zip(MODALITIES, rates, strict=True))
    for batch in talking_digits(missing=missing, seed=seed, **ALL):
        present = torch.stack([batch.present[m] for m in MODALITIES])
        assert present.any(0).all()
        for name, rate in missing.items():
            absent = ~batch.present[name]
            assert abs(absent.sum() - rate * len(batch)) <= 1
            assert not batch.inputs[name][absent].any()
            assert name == "image" or not batch.lengths[name][absent].any()


def test_missing_is_redrawn_by_the_seed_and_hides_noise_too():
    knobs = dict(missing={"audio": 0.5, "image": 0.5}, image_noise=1.0, audio_noise=1.0)
    a, b = talking_digits(seed=0, **knobs).train, talking_digits(seed=1, **knobs).train
    assert not a.present["audio"].equal(b.present["audio"])
    assert a.present["audio"].equal(~a.present["image"])
    assert not a.inputs["image"][~a.present["image"]].any()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (dict(tasks=("digits",)), "tasks: unknown .'digits'.; known are .'digit'"),
        (dict(modalities=("video",)), "modalities: unknown .'video'."),
        (dict(missing={"text": 0.5}), "missing: unknown .'text'."),
        (dict(missing={"audio": 0.7, "image": 0.7}), "sum of at most 1"),
        (dict(missing={"audio": -0.1}), r"rates in \[0, 1\]"),
        (dict(modalities=("image",), missing={"image": 0.1}), "sum of at most 0"),
        (
            dict(labels_per_class={"ink": 3}, tasks=("digit",)),
            "labels_per_class: unknown .'ink'.",
        ),
        (dict(labels_per_class=-1), "labels_per_class needs numbers >= 0"),
        (dict(image_noise=-1.0), "noise needs to be >= 0"),
    ],
)
def test_bad_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        talking_digits(**knobs)


def test_the_card_counts_what_is_in_the_file(stored):
    recipe = json.loads(stored["recipe"].item())
    names = [*recipe["accents"], "either of two"]
    counts = np.zeros((8, 10), int)
    np.add.at(
        counts,
        (np.where(stored["accent"] < 0, 7, stored["accent"]), stored["digit"]),
        1,
    )
    card = data_file("talking_digits", "CARD.md").read_text(encoding="utf-8")
    table = {
        cells[0]: [int(c) for c in cells[1:]]
        for line in card.splitlines()
        if len(cells := [c.strip() for c in line.strip("|").split("|")]) == 12
        and cells[1].isdigit()
    }
    assert table == {
        **{name: [*row, row.sum()] for name, row in zip(names, counts, strict=True)},
        "all": [*counts.sum(0), counts.sum()],
    }
    assert recipe["tool"] in card and f"{len(stored['log_mel']):,} clips" in card
    for k, rate in enumerate(recipe["rates"]):
        assert f"{(stored['rate'] == k).sum():,} {rate}" in card


def test_all_clips_of_the_file_differ(stored):
    flat = stored["log_mel"].reshape(len(stored["log_mel"]), -1)
    assert len(np.unique(flat, axis=0)) == len(flat)


def test_names_agree_with_the_recipe(stored):
    recipe = json.loads(stored["recipe"].item())
    for task, key in (
        ("digit", "words"),
        ("accent", "accents"),
        ("rate", "rates"),
        ("pitch", "pitches"),
    ):
        assert CLASSES[task] == tuple(recipe[key])


@pytest.fixture
def recipe(make, stored) -> dict:
    """What the data says of how it was made, where the same tool is there to do it
    again."""
    recipe = json.loads(stored["recipe"].item())
    if f"espeak-ng {make.espeak_version()}" != recipe["tool"]:
        pytest.skip(f"needs {recipe['tool']}")
    return recipe


def test_the_recipe_makes_the_same_bytes(make, stored, recipe):
    some = np.linspace(0, len(stored["log_mel"]) - 1, 12).astype(int)
    which = [
        (
            recipe["voices"][stored["voice"][i]],
            list(recipe["accents"])[stored["accent"][i]],
            list(recipe["rates"])[stored["rate"][i]],
            list(recipe["pitches"])[stored["pitch"][i]],
            recipe["words"][stored["digit"][i]],
        )
        for i in some
        if stored["accent"][i] >= 0
    ]
    some = [i for i in some if stored["accent"][i] >= 0]
    pictures, frames = make.clips(which)
    assert pictures.tobytes() == stored["log_mel"][some].tobytes()
    assert (frames == stored["frames"][some]).all()


def test_six_sounds_are_those_of_six_samples(make):
    """Each clean sound has the log-mel of its sample, up to the frequencies that it
    holds; in a noisy one that is blurred and not gone."""
    front, sounds = make.LOG_MEL, aloud()
    assert [*sounds] == ["clean", "noisy"]
    files = [*sounds["clean"], *sounds["noisy"]]
    assert len(files) == 12 and sum(map(len, files)) < 150_000
    pictures = talking_digits(seed=0).test.inputs["audio"][list(ALOUD)].numpy()
    held = front.bank @ np.fft.rfftfreq(front.fft, 1 / front.sample_rate) < 5000
    for picture, *pair in zip(pictures, sounds["clean"], sounds["noisy"], strict=True):
        alike = []
        for file in pair:
            with wave.open(io.BytesIO(file)) as opened:
                assert 2 * opened.getframerate() == front.sample_rate
                samples = np.frombuffer(opened.readframes(20_000), np.uint8)
            spectrum = np.fft.rfft(100 * (samples - 128.0))
            levels = front(np.fft.irfft(spectrum, 2 * len(samples)))[:32, held]
            rows = picture[: len(levels), held]
            alike.append(np.corrcoef(levels.ravel(), rows.ravel())[0, 1])
        assert alike[0] > 0.9 and 0.3 < alike[1] < alike[0]


@pytest.mark.usefixtures("recipe")
def test_the_recipe_makes_the_same_sounds(make, stored):
    made = make.aloud(stored)
    with np.load(make.HEARD) as kept:
        assert kept.files == list(made)
        assert all(np.array_equal(kept[key], made[key]) for key in made)


def test_importing_the_data_does_not_import_scikit_learn():
    code = "import sys, mtmm_lib.data; raise SystemExit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
