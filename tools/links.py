"""Ask for every page that the site, the README and CONTRIBUTING link to, and tell which
are gone.

Sphinx's own builder ``linkcheck`` does the asking. A page that turns robots away
(publishers do, behind a DOI that works) or that does not answer in time is listed, but
is no failure; a page that is not there is one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tools.book import builder, cache_folder, fill_cache
from tools.generate import write
from tools.project import FRONT, ROOT, notebooks

Record = dict[str, Any]

TEXTS = ("README.md", "CONTRIBUTING.md")  # no pages of the site
TURNED_AWAY = re.compile(r"^(401|403|405|406|418|429|999) Client Error")
REACHED = {"working", "redirected", "turned away"}


def check(root: Path, cache: Path) -> list[Record]:
    """One record for each link in the book in ``root`` and in its texts.

    Raises:
        SystemExit: when the builder did not come to an end.
    """
    target = root / "_build" / "linkcheck"
    shutil.rmtree(target, ignore_errors=True)
    custom = ["--builder", "custom", "--custom-builder", "linkcheck"]
    records = outcome([*builder(root), *custom], target, cache)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.mkdir()
        for name in TEXTS:
            shutil.copy(root / name, source)
        plain = [
            sys.executable,
            "-m",
            "sphinx",
            "-Q",
            "-C",
            "-b",
            "linkcheck",
            str(source),
            str(target),
        ]
        plain += [
            "-Droot_doc=README",
            "-Dextensions=myst_parser",
            "-Dlinkcheck_report_timeouts_as_broken=0",
        ]
        records += outcome(plain, target, cache)
    for record in records:
        if TURNED_AWAY.match(record["info"]):
            record["status"] = "turned away"
    return [record for record in records if record["uri"].startswith("http")]


def outcome(command: list[str], target: Path, cache: Path) -> list[Record]:
    environment = {**os.environ, "MTMM_EXECUTION_CACHE": str(cache)}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True
    )
    results = target / "output.json"
    if not results.exists():
        raise SystemExit(
            f"The builder did not come to an end:\n{done.stdout}{done.stderr}"
        )
    return [
        json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()
    ]


def judge(records: list[Record]) -> tuple[list[str], list[str]]:
    """The lines to print, and the links that lead nowhere.

    Raises:
        SystemExit: when no page could be reached, which says something about this
            machine's network only.
    """
    if records and not any(record["status"] in REACHED for record in records):
        raise SystemExit(
            f"No network: none of {len(records)} pages could be reached, so nothing "
            "is known about the links."
        )
    counts = Counter(record["status"] for record in records)
    lines = [", ".join(f"{count} {status}" for status, count in sorted(counts.items()))]

    def shown(status: str) -> list[str]:
        text = "{filename}:{lineno}: {uri} ({info})"
        return [
            text.format(**record) for record in records if record["status"] == status
        ]

    for status in ("turned away", "timeout"):
        lines += [f"{status}: {line}" for line in shown(status)]
    return lines, shown("broken")


def main() -> None:
    cache = cache_folder()
    write(fill_cache(cache, [FRONT, *notebooks()]))
    lines, broken = judge(check(ROOT, cache))
    print(*lines, sep="\n")
    sys.exit("\n".join(["", "These links lead nowhere:", *broken]) if broken else 0)


if __name__ == "__main__":
    main()
