"""Experiments: the same thing over many seeds, and what the differences say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, TypeVar

from mtmm_lib.results import Gain

if TYPE_CHECKING:
    import pandas as pd


Value = TypeVar("Value")


def repeat(
    function: Callable[[int], Mapping[str, float]],
    seeds: Iterable[int],
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Calls `function(seed)` for every seed and puts the results side by side.

    Args:
        function: seed → dict of results, name → number; it should draw everything, the
            split of the data included, from the seed.
        seeds: the seeds, each once.
        n_jobs: worker processes; by default the environment variable `MTMM_WORKERS`,
            or 1.

    Returns:
        one row per seed (the index), one column per result.

    Raises:
        ValueError: for no seed or one that comes twice (equal seeds are no independent
            repetitions).
        TypeError: when a result is no number.
    """
    import pandas as pd

    seeds = list(seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"repeat needs at least one seed and none twice, got {seeds}")
    n_jobs = int(os.environ.get("MTMM_WORKERS", "1")) if n_jobs is None else n_jobs
    if n_jobs == 1:
        rows = [dict(function(seed)) for seed in seeds]
    else:
        from joblib import Parallel, delayed

        rows = Parallel(n_jobs=n_jobs)(delayed(function)(seed) for seed in seeds)
    for seed, row in zip(seeds, rows, strict=True):
        for name, value in row.items():
            if not isinstance(value, Real):
                raise TypeError(
                    f"result {name!r} of seed {seed} is {value!r}, expected a number"
                )
    return pd.DataFrame(rows, index=pd.Index(seeds, name="seed"))


def paired_gain(
    frame: pd.DataFrame,
    a: str,
    b: str,
    unit: str = "",
    *,
    pool: tuple[int, int] | None = None,
) -> Gain:
    r"""The mean of the differences a − b, seed by seed, with its standard error.

    Pairing removes what both share, such as an easy split: with $d_i = a_i - b_i$, the
    gain is $\bar d$ and its standard error $s_d / \sqrt n$, where $s_d$ is the sample
    standard deviation of the $d_i$.

    That is right where each seed draws its data anew. Seeds that split one pool of data
    share samples, and ten such splits are not ten independent measurements: two
    standard errors are then passed by luck alone about five times as often as they
    should. With `pool` the error is the corrected one of Nadeau & Bengio (2003),
    $s_d \sqrt{1/n + n_\text{test}/n_\text{train}}$, which speaks of new data from the
    same population. More seeds hardly make it smaller; smaller test parts do, and
    larger effects need no smaller one.

        frame = repeat(lambda seed: scores(talking_digits(seed=seed)), range(10))
        gain = paired_gain(frame, "shared", "separate", "points", pool=(1000, 497))

    Args:
        frame: one row per seed, as `repeat` returns it.
        a, b: columns; where less is better, exchange them.
        unit: of the columns, as in `"points"`.
        pool: (n_train, n_test), where the seeds split one pool: how many of its samples
            each trains on and tests on. `gain.of_this_pool()` then goes back to the
            plain error, for a claim about this pool alone.

    Raises:
        KeyError: for an unknown column.
        ValueError: for fewer than two seeds, a result that is NaN, or a pool that is no
            pair of positive whole numbers.
    """
    for column in (a, b):
        if column not in frame:
            raise KeyError(
                f"no column {column!r}; the results are {list(frame.columns)}"
            )
    difference = frame[a] - frame[b]
    if difference.isna().any():
        seeds = list(difference.index[difference.isna()])
        raise ValueError(
            f"{a!r} or {b!r} is NaN for seeds {seeds}, so that nothing can be "
            "compared there"
        )
    return Gain.of(difference, unit, pool=pool)


def scale(lesson: Value, full: Value) -> Value:
    """The budget that fits: `lesson` by default, `full` where `MTMM_SCALE=full` says
    there is a GPU.

    Raises:
        ValueError: when `MTMM_SCALE` is neither.
    """
    wanted = os.environ.get("MTMM_SCALE", "lesson")
    if wanted not in ("lesson", "full"):
        raise ValueError(f"MTMM_SCALE is 'lesson' or 'full', got {wanted!r}")
    return lesson if wanted == "lesson" else full
