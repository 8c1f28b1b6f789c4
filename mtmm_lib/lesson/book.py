"""The lessons of the book in their order: one folder each, which its slug names.

The slug is a lesson's identity. Its number is its place in `_toc.yml` and nothing else,
so that a lesson can be put between two others. What is known about a lesson stands in
the front matter of its `lesson.md`; what is known about lessons that nobody has written
yet, in `planned.yml` beside the folders.

A wheel carries the folders and `_toc.yml` inside the package; a checkout has them where
authors write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_PACKED = Path(__file__).with_name("chapters")
_ROOT = Path(__file__).parents[2]
_IS_WHEEL = _PACKED.is_dir()
FOLDER = _PACKED if _IS_WHEEL else _ROOT / "chapters" / "src"
TOC = (_PACKED if _IS_WHEEL else _ROOT) / "_toc.yml"


@dataclass(frozen=True)
class Objective:
    """One of the things that a reader can do after a lesson."""

    can: str
    section: str  # which teaches it, by its heading
    exercise: str  # which tests it


@dataclass(frozen=True)
class Planned:
    """What is known about a lesson before it is written."""

    slug: str
    part: str  # of the book, by its caption
    title: str
    card: str  # what it is about, in one line
    article: tuple[str, ...]  # the article's sections and statements that it takes up
    # the lesson that it follows while it is planned, by slug
    after: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Lesson(Planned):
    """What is known about a lesson."""

    number: str  # as in "07"
    arrows: tuple[str, ...]  # which it changes, of `article.ARROWS`
    needs: tuple[str, ...]  # the lessons to know before, by slug
    objectives: tuple[Objective, ...]
    # LaTeX and meaning of letters that the book's table of notation does not have
    symbols: tuple[tuple[str, str], ...] = ()

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
    """Slug → lesson, in the order of the table of contents.

    Raises:
        ValueError: where a lesson that is listed there is missing, or its front matter
            is not what a lesson needs.
    """
    found: dict[str, Lesson] = {}
    for part in _read(TOC.read_text(encoding="utf-8"))["parts"]:
        for entry in part["chapters"]:
            folder, _, slug = entry.get("file", "").partition("/")
            if folder == "chapters":
                found[slug] = _lesson(slug, part["caption"], f"{len(found):02}")
    return found


def lesson(slug: str) -> Lesson:
    """One lesson.

    Raises:
        ValueError: when there is no such lesson.
    """
    if slug not in lessons():
        raise ValueError(f"the chapters are {', '.join(lessons())}; got {slug!r}")
    return lessons()[slug]


@cache
def planned() -> dict[str, Planned]:
    """Slug → lesson that has still to be written, in order."""
    known, above = {}, ""
    for entry in _read((FOLDER / "planned.yml").read_text(encoding="utf-8")):
        entry["article"] = tuple(entry["article"])
        known[entry["slug"]] = Planned(**{"after": above, **entry})
        above = entry["slug"]
    return {slug: each for slug, each in known.items() if slug not in lessons()}


@cache
def course() -> tuple[Planned, ...]:
    """Every lesson, written (a `Lesson`) or planned, in order.

    Raises:
        ValueError: where a planned lesson is to follow one that there is not.
    """
    order = list(lessons())
    for slug, entry in planned().items():
        if entry.after not in order:
            raise ValueError(f"planned.yml has {slug} after {entry.after!r}: no lesson")
        order.insert(order.index(entry.after) + 1, slug)
    return tuple({**lessons(), **planned()}[slug] for slug in order)


def _lesson(slug: str, part: str, number: str) -> Lesson:
    path = FOLDER / slug / "lesson.md"
    try:
        head = path.read_text(encoding="utf-8").removeprefix("---\n")
        known = _read(head.split("\n---\n", 1)[0])["lesson"]
        known["objectives"] = [Objective(**each) for each in known["objectives"]]
        for name in ("arrows", "needs", "article", "objectives"):
            known[name] = tuple(known[name])
        known["symbols"] = tuple(known.get("symbols", {}).items())
        return Lesson(slug=slug, part=part, number=number, **known)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(
            f"{TOC.name} lists chapters/{slug}, which needs {path} with the front "
            f"matter that other lessons have ({type(error).__name__}: {error})"
        ) from None


def _read(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)
