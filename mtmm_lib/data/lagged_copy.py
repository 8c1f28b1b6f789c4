r"""Two sequences out of step: each step of the one asks what the other one says some
steps later.

At every step t, `sight` and `sound` show one of K symbols, drawn independently. The
target of step t of the sight is the symbol of the sound at step t + lag. With a lag of
zero it stands at the same place; with any other, what stands at the same place says
nothing about it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from mtmm_lib.batch import Batch
from mtmm_lib.data.splits import Splits


def lagged_copy(
    lag: int,
    *,
    length: int = 12,
    symbols: int = 4,
    samples: int = 1000,
    held_out: int = 500,
    seed: int = 0,
) -> Splits:
    r"""Sequences of symbols with a lag between them.

    With the same seed, symbols stay as they are when the lag changes, as far as both
    have them. Whoever does not look at the step t + lag of the sound is right one time
    in K.

    Args:
        lag: how many steps later the sound says what the sight asks for, ≥ 0.
        length: L, steps of the sight; the sound has L + lag.
        symbols: K ≥ 2.
        samples: in `train`.
        held_out: in `valid`, and again in `test`.
        seed: a number ≥ 0.

    Returns:
        Splits of batches with the inputs `sight` float `[B, L, K]` and `sound` float
        `[B, L + lag, K]`, symbols as ones among zeros. Target: `copy` int64 `[B, L]`.

    Raises:
        ValueError: for a negative lag, fewer than two symbols, or no step or sample.
    """
    if lag < 0 or symbols < 2 or min(length, samples, held_out) < 1:
        raise ValueError(
            "expected lag >= 0, at least two symbols, one step and one sample in each "
            f"split, got lag={lag}, symbols={symbols}, length={length}, "
            f"samples={samples}, held_out={held_out}"
        )
    batches = []
    for split, size in enumerate((samples, held_out, held_out)):
        # Steps first, so that more of them leave those before as they are.
        sight, sound = (
            torch.from_numpy(
                np.random.default_rng([seed, split, m])
                .integers(symbols, size=(steps, size))
                .T
            )
            for m, steps in enumerate((length, length + lag))
        )
        batches.append(
            Batch(
                {
                    "sight": F.one_hot(sight, symbols).float(),
                    "sound": F.one_hot(sound, symbols).float(),
                },
                {"copy": sound[:, lag:].contiguous()},
            )
        )
    return Splits(*batches)
