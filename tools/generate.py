"""Pages of the site made from the executed notebooks, the data and the library; git
does not keep them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from packaging.requirements import Requirement

import mtmm_lib
from mtmm_lib.lesson import book, course_map, records
from mtmm_lib.lesson.article import SECTIONS, STATEMENTS
from mtmm_lib.lesson.book import Lesson, Planned
from mtmm_lib.lesson.plots import LOOKS, look
from tools.lesson import linked, minutes, source
from tools.project import GENERATED, ROOT, pyproject

Record = dict[str, Any]

MARKS = {
    "supported": "✓ supported",
    "refuted": "✗ refuted",
    "unresolved": "? unresolved",
}

LEDGER = """\
# Claims ledger

The article that this book follows makes statements: six advantages (A1–A6) and seven
challenges (C1–C7) of multi-task and multi-modal learning, and more about methods and
applications. Here each of them stands beside what the lessons measured. The page is
made from the executed notebooks, and a claim that does not hold stops the build. A
statement that the measurements refute is as welcome here as one that they support.

| | The article says | Verdicts so far |
|---|---|---|
"""

RUNS = """\
# Run times and versions

The lessons on this site were executed with the versions and in the times below.

| Lesson | Seconds | Device | Threads | MTMM_SEED | Versions |
|---|---|---|---|---|---|
"""

CARDS = """\
# Data cards

What each data set of the book is, where it comes from or how it was made, under which
licence, and what it cannot do.
"""

SWATCHES = """\
# Colours

Modalities, tasks and methods have one colour each, the same in arrows, curves and bars
of the whole book. `colour("PCGrad")` returns it, `look("PCGrad")` with its marker. The
nine colours of the methods stay apart for every common kind of colour vision.
"""

ARTICLE = """\
# From the article to this book

The book follows an article, 一切皆是映射：多任务和多模态学习中的深度学习
(*Everything Is a Mapping: Deep Learning in Multi-Task and Multi-Modal Learning*),
section by section, and turns its statements into something to run, change and check.
Here is each section and each statement with the chapters that take it up. A chapter
without a link is planned. What was measured so far stands in the {doc}`claims ledger
<ledger>`.

The article breaks off in the middle of its section 3.4. Its outline in section 1.4
names what was to follow: models and algorithms, which the chapters on methods have;
case studies with code and application scenarios, which are the chapters on domains;
tools and resources, which have {doc}`a page of their own <../tools>`; trends and
challenges, with which the last chapter ends.
"""

SYMBOLS = """\
| Lesson | Letter | Meaning |
|---|---|---|
"""

MODULE = """\
# `{module}`

```{{eval-rst}}
.. automodule:: {module}
   :members: {names}
   :undoc-members:
   :show-inheritance:
```
"""


def link(record: Record) -> str:
    """The chapter that a record comes from, as a link."""
    return linked(f"{{chapter}}`{record['chapter']}`", "../../chapters/")


def about(label: str, lessons: Iterable[Planned]) -> list[Planned]:
    """Those of some lessons that take up a section or statement of the article."""
    return [lesson for lesson in lessons if label in lesson.article]


def lessons() -> str:
    """The lessons as a map, and part by part with a line each."""

    def address(lesson: Lesson) -> str:
        return f"chapters/{lesson.name}.html"

    course = book.course()
    text = f"```{{raw}} html\n{course_map.html(course, address)}\n```\n"
    part = ""
    for lesson in course:
        if lesson.part != part:
            part = lesson.part
            text += f"\n### {part}\n\n"
        if isinstance(lesson, Lesson):
            name = f"[{lesson.number} · {lesson.title}](chapters/{lesson.name}.ipynb)"
            text += f"- {name}. {lesson.card} *{minutes(source(lesson))}*\n"
        else:
            text += f"- {lesson.title} (planned). {lesson.card}\n"
    return text


def symbols() -> str:
    """The letters that mean something in single lessons alone."""
    text = SYMBOLS
    for lesson in book.lessons().values():
        named = f"[{lesson.number} {lesson.title}](../chapters/{lesson.name}.ipynb)"
        for formula, meaning in lesson.symbols:
            text += f"| {named} | ${formula}$ | {meaning} |\n"
            named = ""  # once is enough
    return text


def ledger(claims: list[Record]) -> str:
    """Every statement of the article beside what the book measured."""

    def supporting(label: str | None) -> list[Record]:
        return [claim for claim in claims if claim["supports"] == label]

    def rows() -> Iterator[str]:
        for label, words in STATEMENTS.items():
            verdicts = sorted({MARKS[claim["verdict"]] for claim in supporting(label)})
            if verdicts:
                yield (
                    f"| {label} | {words} | "
                    f"[{', '.join(verdicts)}](#ledger-{label.lower()}) |\n"
                )
            elif label[0] in "AC":
                titles = [each.title for each in about(label, book.planned().values())]
                planned = f" (planned: {'; '.join(titles)})" if titles else ""
                yield f"| {label} | {words} | not tested yet{planned} |\n"

    def entry(claim: Record) -> str:
        mark = f"**{MARKS[claim['verdict']]}.** " if claim["supports"] else ""
        missing = (
            f" What would settle it: {claim['missing']}" if claim["missing"] else ""
        )
        measured = f"*Measured:* {claim['result']['text']} ({link(claim)})."
        statement = claim["statement"].rstrip(".")
        return f"- {mark}{statement}. {measured}{missing}\n"

    text = LEDGER + "".join(rows())
    for label, words in STATEMENTS.items():
        if supporting(label):
            text += f"\n(ledger-{label.lower()})=\n## {label}: {words}\n\n" + "".join(
                map(entry, supporting(label))
            )
    if supporting(None):
        text += "\n## Facts of the book's own\n\n" + "".join(
            map(entry, supporting(None))
        )
    return text


def article() -> str:
    """Every section and every statement of the article, with the chapters that follow
    it."""

    def row(label: str, words: str) -> str:
        chapters = [
            f"[{lesson.number} {lesson.title}](../../chapters/{lesson.name}.ipynb)"
            for lesson in about(label, book.lessons().values())
        ]
        chapters += [lesson.title for lesson in about(label, book.planned().values())]
        return f"| {label} | {words} | {'; '.join(chapters)} |\n"

    head = "| | The article | Chapters |\n|---|---|---|\n"
    text = ARTICLE + "\n## Sections\n\n" + head
    text += "".join(row(label, words) for label, words in SECTIONS.items())
    groups = {
        "F": "Families",
        "S": "Steps",
        "A": "Advantages",
        "C": "Challenges",
        "D": "Domains",
    }
    for letter, title in groups.items():
        text += f"\n## {title}\n\n{head}"
        text += "".join(row(x, STATEMENTS[x]) for x in STATEMENTS if x[0] == letter)
    return text


def runs(footers: list[Record]) -> str:
    """Seconds, device and versions of every executed chapter; versions of what the book
    depends on."""
    text = RUNS
    for footer in footers:
        versions = ", ".join(
            f"{name} {number}" for name, number in footer["versions"].items()
        )
        shown = [
            *(footer[key] for key in ("seconds", "device", "threads", "seed")),
            versions,
        ]
        text += f"| {link(footer)} | " + " | ".join(map(str, shown)) + " |\n"
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + extras["lesson"] + extras["export"]
    lines += extras["lab"][1:]  # the first names the project's own extras
    lines += pyproject()["dependency-groups"]["book"]
    text += (
        "\n## What the book depends on\n\n| Package | Version | Allowed "
        "|\n|---|---|---|\n"
    )
    for wanted in sorted(
        {Requirement(line) for line in lines}, key=lambda wanted: wanted.name.lower()
    ):
        if wanted.marker is None or wanted.marker.evaluate():
            text += f"| {wanted.name} | {version(wanted.name)} | {wanted.specifier} |\n"
    return text


def data_cards() -> str:
    """The cards of the embedded data sets, one section each."""
    text = CARDS
    for path in sorted((ROOT / "data").glob("*/CARD.md")):
        card = path.read_text(encoding="utf-8").strip()
        card = re.sub(r"\(\.\./(\w+)/CARD\.md\)", r"(#card-\1)", card)
        card = re.sub(r"^(?=#+ )", "#", card, flags=re.MULTILINE)
        text += f"\n(card-{path.parent.name})=\n{card}\n"
    return text


def swatches() -> str:
    """Every colour that has a meaning, with its name and marker."""
    text = SWATCHES
    for group, names in LOOKS.items():
        text += f"\n## {group[0].upper()}{group[1:]}\n\n| | | |\n|---|---|---|\n"
        for name, code in names.items():
            drawn = f'<span class="book-swatch" style="background:{code}"></span>'
            text += f"| {drawn} | {name} | `{look(name)['marker']}` `{code}` |\n"
    return text


def documented() -> dict[str, list[str]]:
    """Public module → its public names. A name stands with the shortest path that the
    library gives it."""
    found: dict[str, list[str]] = {}
    seen: set[int] = set()
    modules = [
        module.name for module in pkgutil.walk_packages(mtmm_lib.__path__, "mtmm_lib.")
    ]
    for path in sorted(modules, key=lambda path: (path.count("."), path)):
        package, _, name = path.rpartition(".")
        if (
            package == "mtmm_lib.lesson"
            or name.startswith("_")
            or name in found.get(package, ())
        ):
            # A lesson imports from the package; so does who wants a data set of the
            # module's name.
            continue
        members = vars(importlib.import_module(path))
        own = {
            name: value
            for name, value in members.items()
            if _home(value).startswith(path)
        }
        names = [
            name
            for name in members.get("__all__", own)
            if name in own and not name.startswith("_")
        ]
        if names := [name for name in names if id(own[name]) not in seen]:
            found[path] = names
            seen |= {id(own[name]) for name in names}
    return found


def _home(value: object) -> str:
    return getattr(value, "__module__", None) or ""


def pages(executed: dict[Path, NotebookNode]) -> dict[str, str]:
    """File name → text of every generated page."""
    claims = [
        record
        for notebook in executed.values()
        for record in records(notebook, "claim")
    ]
    footers = [
        record
        for notebook in executed.values()
        for record in records(notebook, "footer")
    ]
    modules = documented().items()
    return {
        "lessons.md": lessons(),
        "symbols.md": symbols(),
        "ledger.md": ledger(claims),
        "article.md": article(),
        "runs.md": runs(footers),
        "data-cards.md": data_cards(),
        "colours.md": swatches(),
        **{
            f"reference/{m}.md": MODULE.format(module=m, names=", ".join(names))
            for m, names in modules
        },
    }


def write(executed: dict[Path, NotebookNode]) -> None:
    """Write the pages that changed (an untouched file is not built again) and remove
    those of the past."""
    wanted = pages(executed)
    for path in GENERATED.rglob("*.md"):
        if path.relative_to(GENERATED).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
