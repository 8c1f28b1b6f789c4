"""Draw the book's one picture as a file for the README, which cannot run the lessons'
code."""

from __future__ import annotations

import sys

from mtmm_lib.lesson import strip
from tools.project import ROOT

TARGET = ROOT / "_static" / "strip.svg"


def main() -> None:
    drawn = strip.standalone()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(drawn, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != drawn:
        raise SystemExit(
            f"{TARGET.relative_to(ROOT)} is out of step: run python -m tools.picture"
        )


if __name__ == "__main__":
    main()
