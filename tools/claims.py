"""Run every claim of the book under many seeds, and show how often each holds and by
how much.

Where seeds are few, a true effect of three standard errors fails one run in six. So a
claim has to hold under every value of ``MTMM_SEED`` that is tried before the book
relies on it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from typing import Any

from mtmm_lib.lesson import book, records
from tools.execute import execute
from tools.project import jobs, notebooks

Record = dict[str, Any]


def margin(result: Record) -> float:
    """How far a result is inside its rule: above 0 it holds.

    For a gain: standard errors beyond the two that the rule asks for. For a bound: the
    distance to the nearest end, relative to that end.
    """
    if result["type"] == "Gain":
        mean, se, bound = result["mean"], result["se"], result["bound"]
        distance = {
            "above": mean - bound,
            "below": bound - mean,
            "within": bound - abs(mean),
            "undecided": bound - abs(mean) + 4 * se,
        }[result["relation"]]
        return (distance - 2 * se) / se if se else math.copysign(math.inf, distance)
    ends = [(result["value"] - result["low"], result["low"])] if "low" in result else []
    ends += (
        [(result["high"] - result["value"], result["high"])] if "high" in result else []
    )
    return min(distance / (abs(end) or 1.0) for distance, end in ends)


def table(claims: list[Record], seeds: int) -> tuple[list[str], list[str]]:
    """The lines to print, and the claims that failed under some seed, or were not made
    under all of them."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for claim in claims:
        number = book.lesson(claim["chapter"]).number
        groups.setdefault((number, claim["statement"]), []).append(claim)
    lines = ["chapter  holds   least   median  kind   claim"]
    failed = []
    for (number, statement), group in sorted(groups.items()):
        results = [claim["result"] for claim in group]
        margins = [margin(result) for result in results]
        holds = sum(result["holds"] for result in results)
        lines.append(
            f"{number:7}  {holds:>2}/{seeds:<3} {min(margins):+7.2f} "
            f"{statistics.median(margins):+7.2f}  "
            f"{'s.e.' if results[0]['type'] == 'Gain' else 'rel.'}   {statement}"
        )
        if holds < seeds:
            bad = [
                str(claim["seed"]) for claim in group if not claim["result"]["holds"]
            ]
            failed.append(
                f"chapter {number}: {statement} (fails under MTMM_SEED "
                f"{', '.join(bad) or 'missing'})"
            )
    return lines, failed


def week(seconds: float) -> int:
    """How many weeks have passed at a time that is given in seconds since 1970."""
    return int(seconds) // (7 * 24 * 3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "chapters",
        nargs="*",
        help="slugs or numbers; all if none is named",
    )
    parser.add_argument(
        "--seeds", type=int, default=20, help="the values 0 … SEEDS-1 of MTMM_SEED"
    )
    parser.add_argument(
        "--week",
        action="store_true",
        help="SEEDS values that no other week has, instead",
    )
    arguments = parser.parse_args()
    first = arguments.seeds * week(time.time()) if arguments.week else 0
    tasks = [
        (path, f"{path.stem}, seed {seed}", {"MTMM_SEED": str(seed)})
        for path in notebooks(arguments.chapters)
        for seed in range(first, first + arguments.seeds)
    ]
    runs = execute(tasks, jobs(), go_on_after=["ClaimError"])
    lines, failed = table(
        [record for run in runs for record in records(run.notebook, "claim")],
        arguments.seeds,
    )
    print(*lines, sep="\n")
    failed += [f"{run.label}: {run.error}" for run in runs if run.error]
    sys.exit("\n".join(["", "Not every claim holds:", *failed]) if failed else 0)


if __name__ == "__main__":
    main()
