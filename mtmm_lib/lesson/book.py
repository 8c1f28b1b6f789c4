"""The lessons of the book in their order: one folder each, which its slug names.

The slug is a lesson's identity. Its number is its place in `_toc.yml` and nothing else,
so that a lesson can be put between two others. What is known about a lesson stands in
the front matter of its `lesson.md`.

A wheel carries the folders and `_toc.yml` inside the package; a checkout has them where
authors write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PACKED = Path(__file__).with_name("chapters")
_ROOT = Path(__file__).parents[2]
_IS_WHEEL = _PACKED.is_dir()
FOLDER = _PACKED if _IS_WHEEL else _ROOT / "chapters" / "src"
TOC = (_PACKED if _IS_WHEEL else _ROOT) / "_toc.yml"


@dataclass(frozen=True)
class Lesson:
    """What the book knows about one of its lessons."""

    slug: str
    number: str  # as in "07"
    title: str
    arrows: tuple[str, ...]  # which it changes, of `article.ARROWS`

    @property
    def name(self) -> str:
        """Of its notebook and its page, as in "07-adding-up-losses"."""
        return f"{self.number}-{self.slug}"

    @property
    def folder(self) -> Path:
        """Where `lesson.md`, `exercises.py` and `quiz.json` lie."""
        return FOLDER / self.slug


@cache
def lessons() -> dict[str, Lesson]:
    """Slug → lesson, in the order of the table of contents."""
    listed = re.findall(
        r"^ *- file: chapters/(\S+)$", TOC.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {slug: _lesson(slug, place) for place, slug in enumerate(listed)}


def lesson(slug: str) -> Lesson:
    """One lesson.

    Raises:
        ValueError: when there is no such lesson.
    """
    if slug not in lessons():
        raise ValueError(f"the chapters are {', '.join(lessons())}; got {slug!r}")
    return lessons()[slug]


def front_matter(path: Path) -> dict[str, Any]:
    """What the front matter of a source says about its lesson."""
    import yaml

    head = path.read_text(encoding="utf-8").split("\n---\n", 1)[0]
    return yaml.safe_load(head.removeprefix("---\n"))["lesson"]


def _lesson(slug: str, place: int) -> Lesson:
    head = front_matter(FOLDER / slug / "lesson.md")
    return Lesson(slug, f"{place:02}", head["title"], tuple(head["arrows"]))
