"""Where things are, and what ``pyproject.toml`` says about the project."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mtmm_lib.environment import whole_number
from mtmm_lib.lesson import book
from mtmm_lib.lesson.book import Lesson

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
CHAPTERS = ROOT / "chapters"
README = ROOT / "README.md"
FRONT = ROOT / "index.md"  # a notebook in MyST text; the other pages are plain text
GENERATED = ROOT / "pages" / "generated"


@cache
def pyproject() -> dict[str, Any]:
    """The content of ``pyproject.toml``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def repository() -> str:
    """The public address of the repository: ``project.urls.Repository`` is the one
    place it stands."""
    return pyproject()["project"]["urls"]["Repository"].rstrip("/")


def site_address() -> str:
    """Where GitHub publishes the site of the repository, without a slash at the end."""
    owner, name = repository().split("/")[-2:]
    return f"https://{owner}.github.io/{name}"


def lessons(names: list[str] | None = None) -> list[Lesson]:
    """The book's lessons in order; ``names`` (``"01"`` or a slug) keeps the ones that
    match."""
    found = list(book.lessons().values())
    if not names:
        return found
    picked = [lesson for lesson in found if {lesson.slug, lesson.number} & set(names)]
    if not picked:
        there_are = ", ".join(lesson.name for lesson in found)
        raise SystemExit(
            f"No chapter matches {', '.join(names)}; there are: {there_are}"
        )
    return picked


def notebook(lesson: Lesson) -> Path:
    """The notebook that is derived from a lesson's source."""
    return CHAPTERS / f"{lesson.name}.ipynb"


def notebooks(names: list[str] | None = None) -> list[Path]:
    """The derived notebooks of ``lessons(names)``."""
    return [notebook(lesson) for lesson in lessons(names)]


def tracked(*patterns: str) -> list[str]:
    """The files that git tracks, or would if they were added, as paths from the
    root."""
    command = [
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        *patterns,
    ]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [name for name in listed.splitlines() if (ROOT / name).exists()]


def jobs() -> int:
    """How many notebooks run at once: ``MTMM_JOBS``, or two."""
    return whole_number("MTMM_JOBS", 2, least=1)
