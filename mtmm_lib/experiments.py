"""Experiments: the same thing over many seeds, and what the differences say."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from mtmm_lib.batch import Batch
from mtmm_lib.data import Splits
from mtmm_lib.environment import variable, whole_number
from mtmm_lib.model import Model, TaskModel
from mtmm_lib.results import Gain
from mtmm_lib.tasks import Task
from mtmm_lib.training import TrainingError, evaluate, fit_many

if TYPE_CHECKING:
    import pandas as pd


Value = TypeVar("Value")

#: A seed, or settings and then a seed: what a draw of a study is called by.
Key = int | tuple[Any, ...]

#: How far away, in seeds, the draws are on which a study tunes.
ELSEWHERE = 500


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
    n_jobs = whole_number("MTMM_WORKERS", 1, least=1) if n_jobs is None else n_jobs
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
    frame: pd.DataFrame = pd.DataFrame(rows, index=pd.Index(seeds, name="seed"))
    return frame


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
            each sets aside for training and for the test, also where training then uses
            some of them only. `gain.of_this_pool()` goes back to the plain error, for a
            claim about this pool alone.

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


class Study:
    r"""Models on many draws: what every comparison repeats, draw → train → score →
    tune → gain.

        study = Study(
            lambda seed: talking_digits(tasks=["digit", "rate"], seed=seed),
            range(10),
            pool=(1000, 497),
            epochs=15,
        )
        rate = study.tune(shared, (0.003, 0.01, 0.03), "digit").best
        models = study.train(shared, lr=rate)
        score = study.score(models)  # a column per task, a row per seed
        deaf = study.score(models, view=lambda batch: batch.without("audio"))
        gain = study.gain(score["digit"], deaf["digit"])

    A draw may have settings beside its seed. Then a key is a tuple that ends with the
    seed, all models of all settings are trained at once, and tables have one level of
    rows for each part of the key:

        study = Study(world, [(p, seed) for p in (0, 0.5, 1) for seed in range(10)], …)
        error = study.score(study.train(build), "task1")["task1"].unstack(0)

    Args:
        draw: seed → `Splits`, or (setting, …, seed) → `Splits`, called once for each
            key; whatever is random follows from the seed. All draws need the same
            sizes.
        seeds: the seeds, or keys, each once.
        valid: each model keeps the epoch that was best on its draw's validation part;
            where false, the last one.
        pool: (n_train, n_test), where the draws split one pool of data; see
            `paired_gain`.
        budget: settings of `fit_many` for all trainings: epochs, batch_size, lr, ….

    Raises:
        ValueError: for no seed, or one that comes twice.
        TypeError: when `draw` returns anything but three Batches.
    """

    def __init__(
        self,
        draw: Callable[..., Splits],
        seeds: Iterable[Key],
        *,
        valid: bool = True,
        pool: tuple[int, int] | None = None,
        **budget: Any,
    ) -> None:
        self.keys: list[Key] = list(seeds)
        if not self.keys or len(set(self.keys)) != len(self.keys):
            raise ValueError(
                f"a Study needs at least one seed and none twice, got {self.keys}"
            )
        self.draw, self.valid, self.pool, self.budget = draw, valid, pool, budget
        self.draws = [_splits(draw(*_parts(key)), key) for key in self.keys]

    def train(self, build: Callable[[], Model], **options: Any) -> list[Model]:
        """One model for each draw, trained on its training part.

        Args:
            build: makes a fresh model; torch's random numbers are seeded by the key's
                seed.
            options: settings of `fit_many` that differ from the study's budget, such as
                `lr` or `balancer`.

        Returns:
            the trained models, in the order of the keys.
        """
        return fit_many(
            build,
            [draw.train for draw in self.draws],
            valid=[draw.valid for draw in self.draws] if self.valid else None,
            seeds=[_parts(key)[-1] for key in self.keys],
            **{**self.budget, **options},
        )

    def score(
        self,
        models: Sequence[TaskModel],
        task: str | Sequence[str] | None = None,
        *,
        view: Callable[[Batch], Batch] | None = None,
        part: Literal["train", "valid", "test"] = "test",
    ) -> pd.DataFrame:
        """Each model's metrics on its own draw.

        Args:
            models: one for each draw, in the order of the keys.
            task: a task, or several; by default all.
            view: what the models get to see of the data, as a function of the batch.
            part: of the draw.

        Returns:
            a column per task, a row per key; NaN where the part has no label.

        Raises:
            ValueError: when there are not as many models as draws.
            KeyError: for an unknown task.
        """
        import pandas as pd

        if len(models) != len(self.draws):
            raise ValueError(
                f"one model for each of {len(self.draws)} draws is needed, got "
                f"{len(models)}"
            )
        data: list[Batch] = [getattr(draw, part) for draw in self.draws]
        rows = [
            evaluate(model, batch if view is None else view(batch))
            for model, batch in zip(models, data, strict=True)
        ]
        wanted = list(rows[0]) if task is None else task
        wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        unknown = [name for name in wanted if name not in rows[0]]
        if unknown:
            raise KeyError(f"no task {unknown}; the models have {list(rows[0])}")
        frame: pd.DataFrame = pd.DataFrame(rows, self._index(), wanted)
        return frame

    def tune(
        self,
        build: Callable[[], Model],
        rates: Iterable[float],
        task: str | Callable[[pd.DataFrame], pd.Series[Any]] | None = None,
        *,
        seeds: Iterable[Key] | None = None,
        widenings: int = 4,
        **options: Any,
    ) -> Tuned:
        """The learning rate that is best on the validation parts of other draws.

        Nothing of the study's own draws is looked at. The grid is widened where its
        best rate is its first or its last (see `search`); a rate at which training
        breaks down counts as the worst.

        Args:
            build: as in `train`.
            rates: the learning rates to try first, at least two.
            task: the task by whose metric a rate is judged; or a function of the table
                that `score` returns, to a number for each row, the more the better. It
                may be left out where the models have one supervised task alone.
            seeds: of the other draws; by default the study's own, each 500 further on.
            widenings: how many rates may be added.
            options: as in `train`.

        Returns:
            the best rate with what was measured.

        Raises:
            ValueError: when a seed is one of the study's own, or when there are several
                supervised tasks and none is named.
        KeyError: for an unknown task.
        """
        import pandas as pd

        others = [*map(_elsewhere, self.keys)] if seeds is None else list(seeds)
        both = set(others) & set(self.keys)
        if both:
            raise ValueError(
                f"seeds {sorted(both)} are the study's own: tuned on them, the study "
                "would judge what it has seen; give `seeds` of other draws"
            )
        with torch.random.fork_rng([]):
            judge = _judge(task, build().tasks)
        elsewhere = Study(self.draw, others, valid=self.valid, **self.budget)
        found: dict[float, pd.Series[Any]] = {}

        def measure(rate: float) -> float:
            try:
                models = elsewhere.train(build, **{**options, "lr": rate})
            except TrainingError:
                return math.nan
            found[rate] = judge(elsewhere.score(models, part="valid"))
            return float(found[rate].mean())

        best = search(measure, rates, widenings=widenings)
        return Tuned(best.best, best.inside, pd.DataFrame(found).sort_index(axis=1))

    def gain(
        self,
        a: pd.Series[Any] | pd.DataFrame,
        b: pd.Series[Any] | pd.DataFrame,
        unit: str = "",
    ) -> Gain:
        """What `paired_gain` makes of two columns of scores, with the study's pool.

        Where keys have settings, the rows of one seed are averaged first: they are no
        independent draws. For a single setting, give its rows: `score["digit"][0.5]`.

        Args:
            a, b: columns of scores, the differences of which are a − b.
            unit: of the columns, as in `"points"`.

        Raises:
            ValueError: when it is not one column each, or their rows differ.
        """
        import pandas as pd

        columns = {"a": _column(a), "b": _column(b)}
        if not columns["a"].index.equals(columns["b"].index):
            raise ValueError(
                "the rows of the two columns differ: "
                f"{list(columns['a'].index)} and {list(columns['b'].index)}"
            )
        frame = pd.DataFrame(columns)
        if frame.index.nlevels > 1:
            frame = frame.groupby(level=-1).mean()
        return paired_gain(frame, "a", "b", unit, pool=self.pool)

    def _index(self) -> pd.Index[Any]:
        import pandas as pd

        settings = len(_parts(self.keys[0])) - 1
        index: pd.Index[Any] = pd.Index(self.keys)
        index.names = [None] * settings + ["seed"]
        return index


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Args:
        best: the best value.
        inside: whether values on both sides of it were tried and are worse.
        scores: value → score, the more the better; from `Study.tune` a table with a
            column for each value and a row for each seed.
    """

    best: float
    inside: bool
    scores: pd.DataFrame | pd.Series[Any]


def search(
    measure: Callable[[float], float], grid: Iterable[float], *, widenings: int = 4
) -> Tuned:
    """The best value of a grid that is widened until the best one lies inside.

    As long as the best value is the smallest or the largest one, the next one beyond it
    is tried, at the distance in proportion that the last two have: (0.01, 0.03) is
    followed by 0.09. Where that does not end within `widenings`, a warning says so: of
    a best value at the end of its grid one knows only that a better one may exist.

    Args:
        measure: value → score, the more the better; NaN counts as the worst.
        grid: at least two values, positive.
        widenings: how many values may be added.

    Raises:
        ValueError: for a grid that cannot be widened, or if all scores are NaN.
    """
    import pandas as pd

    values = sorted(set(grid))
    if len(values) < 2 or values[0] <= 0:
        raise ValueError(
            f"a grid to search needs at least two values, all positive, got {values}"
        )
    scores: dict[float, float] = {}
    for round_ in range(widenings + 1):
        for value in values:
            if value not in scores:
                scores[value] = measure(value)
        kept = {value: s for value, s in scores.items() if not math.isnan(s)}
        if not kept:
            raise ValueError(f"every value of {values} has the score NaN")
        best = max(kept, key=lambda value: kept[value])
        inside = values[0] < best < values[-1]
        if inside or round_ == widenings:
            break
        if best == values[0]:
            values.insert(0, values[0] ** 2 / values[1])
        else:
            values.append(values[-1] ** 2 / values[-2])
    if not inside:
        warnings.warn(
            f"of {', '.join(f'{value:.3g}' for value in values)} the best is "
            f"{best:.3g}, at the end of a grid that was widened {widenings} times: a "
            "better one may lie beyond",
            UserWarning,
            stacklevel=2,
        )
    return Tuned(best, inside, pd.Series(scores).sort_index())


def _splits(drawn: Any, key: Key) -> Splits:
    parts = tuple(drawn) if isinstance(drawn, Sequence) else ()
    if len(parts) != 3 or not all(isinstance(part, Batch) for part in parts):
        raise TypeError(
            "draw returns Splits, or the three Batches train, valid and test, got "
            f"{type(drawn).__name__} for {key}"
        )
    return Splits(*parts)


def _parts(key: Key) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _elsewhere(key: Key) -> Key:
    if isinstance(key, tuple):
        return (*key[:-1], key[-1] + ELSEWHERE)
    return key + ELSEWHERE


def _column(scores: pd.Series[Any] | pd.DataFrame) -> pd.Series[Any]:
    """The only column of a table, or the one that it is already."""
    import pandas as pd

    if isinstance(scores, pd.Series):
        return scores
    if scores.shape[1] != 1:
        raise ValueError(
            f"a gain compares one column with another, got {list(scores)}; choose one, "
            'as in score["digit"]'
        )
    return scores.iloc[:, 0]


def _judge(
    task: str | Callable[[pd.DataFrame], pd.Series[Any]] | None,
    tasks: Mapping[str, Task],
) -> Callable[[pd.DataFrame], pd.Series[Any]]:
    """What makes of a table of scores a number for each row, the more the better."""
    if task is not None and not isinstance(task, str):
        return task
    names = [name for name, each in tasks.items() if each.supervised]
    if task is None and len(names) != 1:
        raise ValueError(
            f"name the task by which a rate is judged, one of {names}, or give a "
            "function of the table of scores"
        )
    name = names[0] if task is None else task
    if name not in tasks:
        raise KeyError(f"no task {name!r}; the models have {sorted(tasks)}")
    sign = 1 if tasks[name].higher_is_better else -1
    return lambda table: sign * table[name]


def scale(lesson: Value, full: Value) -> Value:
    """The budget that fits: `lesson` by default, `full` where `MTMM_SCALE=full` says
    there is a GPU.

    Raises:
        ValueError: when `MTMM_SCALE` is neither.
    """
    wanted = variable("MTMM_SCALE", "lesson")
    if wanted not in ("lesson", "full"):
        raise ValueError(f"MTMM_SCALE is 'lesson' or 'full', got {wanted!r}")
    return lesson if wanted == "lesson" else full
