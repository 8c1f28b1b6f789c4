"""Pages of the site made from the executed notebooks, the data and the library; git
does not keep them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from packaging.requirements import Requirement

import mtmm_lib
from mtmm_lib.lesson import book, records
from mtmm_lib.lesson.article import CHAPTERS_OF, SECTIONS, STATEMENTS, TITLES
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
    lesson = book.lesson(record["chapter"])
    return f"[chapter {int(lesson.number)}](../../chapters/{lesson.name}.ipynb)"


def ledger(claims: list[Record], names: dict[str, str]) -> str:
    """Every statement of the article beside what the book measured."""

    def about(label: str | None) -> list[Record]:
        return [claim for claim in claims if claim["supports"] == label]

    def rows() -> Iterator[str]:
        for label, words in STATEMENTS.items():
            verdicts = sorted({MARKS[claim["verdict"]] for claim in about(label)})
            if verdicts:
                yield (
                    f"| {label} | {words} | "
                    f"[{', '.join(verdicts)}](#ledger-{label.lower()}) |\n"
                )
            elif label[0] in "AC":
                planned = ", ".join(
                    str(int(number))
                    for number in CHAPTERS_OF[label]
                    if number not in names
                )
                yield (
                    f"| {label} | {words} | not tested "
                    f"yet{planned and f' (planned: {planned})'} |\n"
                )

    def entry(claim: Record) -> str:
        mark = f"**{MARKS[claim['verdict']]}.** " if claim["supports"] else ""
        missing = (
            f" What would settle it: {claim['missing']}" if claim["missing"] else ""
        )
        measured = f"*Measured:* {claim['result']['text']} ({link(claim)})."
        return f"- {mark}{claim['statement']}. {measured}{missing}\n"

    text = LEDGER + "".join(rows())
    for label, words in STATEMENTS.items():
        if about(label):
            text += f"\n(ledger-{label.lower()})=\n## {label}: {words}\n\n" + "".join(
                map(entry, about(label))
            )
    if about(None):
        text += "\n## Facts of the book's own\n\n" + "".join(map(entry, about(None)))
    return text


def article(names: dict[str, str]) -> str:
    """Every section and every statement of the article, with the chapters that follow
    it."""

    def chapters(numbers: tuple[str, ...]) -> str:
        return ", ".join(
            f"[{int(n)} {TITLES[n]}](../../chapters/{names[n]}.ipynb)"
            if n in names
            else f"{int(n)} {TITLES[n]}"
            for n in numbers
        )

    head = "| | The article | Chapters |\n|---|---|---|\n"
    text = ARTICLE + "\n## Sections\n\n" + head
    text += "".join(
        f"| {label} | {words} | {chapters(n)} |\n"
        for label, (words, n) in SECTIONS.items()
    )
    groups = {
        "F": "Families",
        "S": "Steps",
        "A": "Advantages",
        "C": "Challenges",
        "D": "Domains",
    }
    for letter, title in groups.items():
        rows = (
            f"| {x} | {STATEMENTS[x]} | {chapters(n)} |\n"
            for x, n in CHAPTERS_OF.items()
            if x[0] == letter
        )
        text += f"\n## {title}\n\n{head}" + "".join(rows)
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
    names = {lesson.number: lesson.name for lesson in book.lessons().values()}
    modules = documented().items()
    return {
        "ledger.md": ledger(claims, names),
        "article.md": article(names),
        "runs.md": runs(footers),
        "data-cards.md": data_cards(),
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
