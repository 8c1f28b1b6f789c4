"""Multiple Features: six views of one sample in step, splits without leakage, drawings
that occur twice."""

import os
from functools import cache

import numpy as np
import pytest

from mtmm_lib.data import mfeat
from mtmm_lib.data.files import data_file
from mtmm_lib.data.mfeat import VIEWS
from mtmm_lib.data.registry import fetch

WIDTHS = {view: int(words.split()[0]) for view, words in VIEWS.items()}
DIGITS = np.repeat(np.arange(10), 200)
needs_the_real_set = pytest.mark.skipif(
    not os.environ.get("MTMM_DATA"),
    reason="MTMM_DATA names no folder with the real sets",
)


def table(values):
    rows = [",".join(map(str, range(values.shape[1]))) + ",0"]
    rows += [
        ",".join(f"{x:g}" for x in row) + f",{digit}"
        for row, digit in zip(values, DIGITS, strict=True)
    ]
    return "\n".join(rows).encode()


@cache
def content():
    """Noise in all six views, whose first number is the sample's own; and some drawings
    that occur twice."""
    rng = np.random.default_rng(0)
    values = {
        view: rng.integers(0, 7, (2000, width)).astype(float)
        for view, width in WIDTHS.items()
    }
    pixels = values["pix"]
    pixels[1201] = pixels[1200]
    pixels[1800:1900] = pixels[1200:1300, ::-1]  # nines that are sixes upside down
    pixels[7] = pixels[3]
    pixels[7, 100] += 1
    values["kar"][:, 5] = 3.25  # says nothing
    for view in set(VIEWS) - {"pix"}:
        values[view][:, 0] = np.arange(2000)
    return values, {f"mfeat-{view}.csv": table(values[view]) for view in VIEWS}


@pytest.fixture
def made_up(stand_in):
    values, files = content()
    stand_in("mfeat", files)
    return values


def numbers(splits, view="fac"):
    """Which sample is where: the first number was the sample's own, and standardising
    keeps the order."""
    first = np.concatenate([batch.inputs[view][:, 0] for batch in splits])
    order = np.argsort(np.argsort(first))
    return np.split(order, np.cumsum([len(batch) for batch in splits])[:-1])


@pytest.mark.parametrize("seed", range(3))
def test_every_sample_is_in_one_split_and_its_views_and_its_digit_belong_together(
    made_up, seed
):
    splits = mfeat(seed=seed)
    parts = numbers(splits)
    assert sorted(np.concatenate(parts)) == list(range(2000))
    for view in set(VIEWS) - {"pix"}:
        assert all(
            (a == b).all() for a, b in zip(parts, numbers(splits, view), strict=True)
        )
    for batch, part in zip(splits, parts, strict=True):
        assert (batch.targets["digit"].numpy() == DIGITS[part]).all()
        assert {view: x.shape[1] for view, x in batch.inputs.items()} == WIDTHS
        raw = made_up["pix"][part]
        correlation = np.corrcoef(raw[:, 10], batch.inputs["pix"][:, 10])[0, 1]
        assert correlation == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_splits_have_their_share_of_every_digit(made_up, seed):
    for batch, share in zip(mfeat(seed=seed), (100, 40, 60), strict=True):
        assert (abs(batch.targets["digit"].bincount() - share) <= 3).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_drawing_is_in_one_split_only(made_up, seed):
    where = np.empty(2000, int)
    for split, part in enumerate(numbers(mfeat(seed=seed))):
        where[part] = split
    assert (where[1800:1900] == where[1200:1300]).all(), (
        "a six and the same upside down"
    )
    assert where[1200] == where[1201] == where[1800] == where[1801], (
        "one leads to the other"
    )
    assert where[3] == where[7], "nearly the same"
    assert len(set(where[1800:1900])) == 3


def test_views_are_standardised_by_the_training_samples_alone(made_up):
    splits = mfeat(seed=1)
    train, *others = numbers(splits)
    for view in VIEWS:
        x = splits.train.inputs[view].double()
        deviation = x.std(0, correction=0)
        np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
        expected = np.ones(WIDTHS[view])
        if view == "kar":
            expected[5] = 0
        np.testing.assert_allclose(deviation, expected, atol=1e-5)
        raw = made_up[view]
        scale = raw[train].std(0) + (raw[train].std(0) == 0)
        for batch, part in zip(splits[1:], others, strict=True):
            expected = (raw[part] - raw[train].mean(0)) / scale
            np.testing.assert_allclose(batch.inputs[view], expected, atol=1e-4)
            assert batch.inputs[view].isfinite().all()


def test_a_seed_gives_the_same_splits_and_another_one_others(made_up):
    a, b, c = (numbers(mfeat(seed=seed)) for seed in (3, 3, 4))
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
    assert set(a[0]) != set(c[0])


def test_views_are_chosen(made_up):
    few, all_ = mfeat(views=("zer", "mor")), mfeat()
    assert list(few.train.inputs) == ["zer", "mor"]
    assert few.test.inputs["mor"].equal(all_.test.inputs["mor"])
    with pytest.raises(ValueError, match=r"unknown \['sound'\]; known are \['fac'"):
        mfeat(views=("pix", "sound"))


def test_what_a_caller_changes_does_not_reach_the_next_one(made_up):
    before = mfeat().train.inputs["fac"].clone()
    for batch in mfeat():
        for tensor in (*batch.inputs.values(), *batch.targets.values()):
            tensor.zero_()
    assert (
        mfeat().train.inputs["fac"].equal(before)
        and mfeat().train.targets["digit"].sum() > 0
    )


# The real set


def read(view):
    rows = (fetch("mfeat") / f"mfeat-{view}.csv").read_text().splitlines()[1:]
    return np.array([row.split(",") for row in rows], float)


@needs_the_real_set
def test_the_real_files_describe_the_same_samples_in_the_same_order():
    """Within a digit the views still tell about each other, which they would not if
    rows were in disorder."""
    tables = {view: read(view) for view in VIEWS}
    assert all(
        t.shape == (2000, WIDTHS[view] + 1) and (t[:, -1] == DIGITS).all()
        for view, t in tables.items()
    )

    def explained(x, y):
        """Share of y's variance within the digits that ridge regression on half of the
        samples explains."""
        x, y = (
            np.concatenate([part - part.mean(0) for part in np.split(v, 10)])
            for v in (x, y)
        )
        x, y = x / x.std(0), y / y.std(0)
        fit, held_out = np.arange(0, 2000, 2), np.arange(1, 2000, 2)
        weights = np.linalg.solve(
            x[fit].T @ x[fit] + 1000 * np.eye(x.shape[1]), x[fit].T @ y[fit]
        )
        return 1 - ((y - x @ weights)[held_out] ** 2).sum() / (y[held_out] ** 2).sum()

    disorder = np.concatenate(
        [200 * c + np.random.default_rng(c).permutation(200) for c in range(10)]
    )
    pixels = tables["pix"][:, :-1]
    for view in set(VIEWS) - {"pix"}:
        y = tables[view][:, :-1]
        assert explained(pixels, y) > 0.05 > explained(pixels, y[disorder]) + 0.05, view


@needs_the_real_set
def test_the_cards_counts_of_drawings_that_occur_twice():
    pixels = read("pix")[:, :-1]
    card = data_file("mfeat", "CARD.md").read_text(encoding="utf-8")
    sixes, nines = slice(1200, 1400), slice(1800, 2000)
    turned = ((pixels[sixes, None, ::-1] - pixels[None, nines]) ** 2).sum(-1)
    nearest = np.sort(turned.min(1))
    twins = int((nearest < 130).sum())
    assert nearest[twins - 1] < 80 and nearest[twins] > 180, "a clear gap"
    assert f"{twins} of the 200 sixes" in card
    identical = 2000 - len(np.unique(pixels, axis=0))
    assert f"{identical} drawings are in the set twice" in card


@needs_the_real_set
def test_the_cards_table_is_what_its_code_prints(capsys):
    card = data_file("mfeat", "CARD.md").read_text(encoding="utf-8")
    exec(card.split("```python")[1].split("```")[0], {})
    printed = capsys.readouterr().out.splitlines()
    rows = [
        line
        for line in card.split("## How hard it is")[1].splitlines()
        if line.startswith("|")
    ][2:]
    assert len(rows) == len(printed) == 7
    for row, line in zip(rows, printed, strict=True):
        assert row.split("|")[1].split()[0].strip("`") == line.split("|")[1].split()[0]
        assert float(row.split("|")[-2]) == pytest.approx(
            float(line.split("|")[-2]), abs=0.3
        )
