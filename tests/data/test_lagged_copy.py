"""Sequences out of step: what the target is, and that nothing else tells it."""

import pytest
import torch

from mtmm_lib.data import lagged_copy


@pytest.mark.parametrize("lag", [0, 1, 5])
def test_the_target_is_what_the_sound_says_later(lag):
    for batch in lagged_copy(lag, length=7, symbols=3):
        sight, sound, copy = (
            batch.inputs["sight"],
            batch.inputs["sound"],
            batch.targets["copy"],
        )
        assert sight.shape == (len(batch), 7, 3) and sound.shape == (
            len(batch),
            7 + lag,
            3,
        )
        assert (sight.sum(2) == 1).all() and (sound.sum(2) == 1).all()
        for t in range(7):
            assert copy[:, t].equal(sound[:, t + lag].argmax(1))


def test_nothing_else_tells_the_target():
    """Given the sight, or another step of the sound, every symbol is equally likely."""
    batch = lagged_copy(2, symbols=3, samples=20_000).train
    sight, sound, copy = (
        batch.inputs["sight"].argmax(2),
        batch.inputs["sound"].argmax(2),
        batch.targets["copy"],
    )
    # around step 4, whose answer is at 6
    for other in (sight[:, 4], sight[:, 6], sound[:, 4], sound[:, 7]):
        table = torch.zeros(3, 3).index_put(
            (other, copy[:, 4]), torch.tensor(1 / 20_000), accumulate=True
        )
        assert (table - 1 / 9).abs().max() < 5 * (8 / 81 / 20_000) ** 0.5
    table = torch.zeros(3, 3).index_put(
        (sound[:, 6], copy[:, 4]), torch.tensor(1.0), accumulate=True
    )
    assert table.diag().sum() == 20_000


def test_the_lag_leaves_the_symbols_as_they_are():
    near, far = lagged_copy(1, seed=2), lagged_copy(4, seed=2)
    for a, b in zip(near, far, strict=True):
        assert a.inputs["sight"].equal(b.inputs["sight"])
        assert a.inputs["sound"].equal(
            b.inputs["sound"][:, : a.inputs["sound"].shape[1]]
        )


def test_a_seed_gives_the_same_data_another_one_others_and_splits_differ():
    one, same, other = (lagged_copy(3, seed=s) for s in (5, 5, 6))
    rows = set()
    for x, y, z in zip(one, same, other, strict=True):
        assert x.inputs["sound"].equal(y.inputs["sound"]) and not x.inputs[
            "sound"
        ].equal(z.inputs["sound"])
        rows |= {
            row.numpy().tobytes()
            for row in torch.cat([x.inputs["sight"], x.inputs["sound"]], 1)
        }
    assert len(rows) == 1000 + 500 + 500


@pytest.mark.parametrize(
    "arguments", [{"lag": -1}, {"lag": 0, "symbols": 1}, {"lag": 0, "length": 0}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected lag >= 0, at least two symbols"):
        lagged_copy(**arguments)
