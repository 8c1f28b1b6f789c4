"""Metrics that compare models across tasks; standard metrics of one task come from torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Mapping


def delta_m(
    results: Mapping[str, float], baseline: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    r"""The mean relative gain of a multi-task model over single-task models, in percent.

    $\Delta_m = \frac{100}{T}\sum_t s_t\,\frac{M_t - B_t}{|B_t|}$, with $s_t = +1$ where a higher metric
    is better and −1 where a lower one is (Maninis et al., 2019; Vandenhende et al., 2022). Higher is better:
    +2 means that the average task gained two percent of its baseline.

    Papers differ, so compare figures of one definition only. Some drop to the opposite sign, where lower is
    better; some average over all metrics, so that a task with five metrics counts five times, where here it
    counts once; some take as reference not trained single-task models but an earlier epoch of the same run.

    Args:
        results: task → metric of the multi-task model.
        baseline: task → the same metric of the model trained on this task alone.
        higher_is_better: task → direction; these are the tasks that are averaged over.

    Raises:
        ValueError: when there is no task, a task has no result or no baseline, a number is not finite, or a
            baseline is zero (no gain is relative to nothing: choose another metric).
    """
    if not higher_is_better:
        raise ValueError("delta_m needs at least one task, got none")
    gains = []
    for name, higher in higher_is_better.items():
        for kind, numbers in (("results", results), ("baseline", baseline)):
            if name not in numbers:
                raise ValueError(f"task {name!r} is missing in {kind}, which has {sorted(numbers)}")
            if not math.isfinite(numbers[name]):
                raise ValueError(f"{kind}[{name!r}] is {numbers[name]}, expected a finite number")
        if baseline[name] == 0:
            raise ValueError(f"the baseline of task {name!r} is zero, so no gain is relative to it")
        gain = (results[name] - baseline[name]) / abs(baseline[name])
        gains.append(gain if higher else -gain)
    return 100 * math.fsum(gains) / len(gains)
