"""Everything that CI runs, one part after the other, with the time that each takes."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from tools.project import ROOT, jobs, notebooks

NBVAL_SEED = "1"  # not the site's: what holds under one seed only is found here

PYTEST = ["pytest", "-q", "-n", str(jobs()), "-p", "no:cacheprovider"]
PARTS: dict[str, list[list[str]]] = {
    "lint": [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["tools.chapters", "--check"],
    ],
    "tests": [
        ["tools.vendor"],
        [*PYTEST, "tests", "--ignore=tests/site", "--ignore=tests/benchmarks"],
    ],
    "notebooks": [
        [
            *PYTEST,
            "--dist=loadfile",
            "--nbval-lax",
            "--nbval-cell-timeout=900",
            *map(str, notebooks()),
        ]
    ],
    "book": [["tools.book"]],
    "site": [[*PYTEST, "tests/site"]],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help=f"of {', '.join(PARTS)}; all when none is named",
    )
    wanted = parser.parse_args().parts or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        parser.error(
            f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}"
        )
    report, failed = [], False
    for part in wanted:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if part == "notebooks":
            environment["MTMM_SEED"] = NBVAL_SEED
        if part == "site" and "book" in wanted:
            environment["MTMM_SITE_IS_BUILT"] = "1"
        start = time.perf_counter()
        codes = [
            subprocess.run(
                [sys.executable, "-m", *command], cwd=ROOT, env=environment
            ).returncode
            for command in PARTS[part]
        ]
        failed |= any(codes)
        report.append(
            f"{part:10} {time.perf_counter() - start:7.1f} s  "
            f"{'FAILED' if any(codes) else 'passed'}"
        )
    print("", *report, sep="\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
