"""Derive ``chapters/NN-slug.ipynb`` from ``chapters/src/slug/lesson.md``, and from what
all of them say the start page, ``chapters/start.ipynb``, and the README's table.

Authors write MyST Markdown; readers run notebooks. A derived notebook has no outputs
and no pairing metadata (who saves answers must not overwrite a source), and the same
source always gives the same bytes.

What a reader has written in a notebook is never lost. A notebook says what was derived,
by a digest of its cells; where the cells are others, or there are outputs, somebody has
worked with it, and it is kept beside the fresh one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtmm_lib.lesson import book
from mtmm_lib.lesson.book import Lesson
from mtmm_lib.lesson.course_map import direct
from tools.citations import to_links
from tools.lesson import filled, is_folded, minutes, source
from tools.project import CHAPTERS, README, ROOT, lessons, notebook, repository

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
YOURS = "-yours"  # the end of the name of a reader's own copy; git ignores these
INSTALL = """\
# In Colab this installs the book's library; where it is present, it does nothing.
from importlib.util import find_spec

if find_spec("mtmm_lib") is None:
    %pip install --quiet "mtmm-lib[lesson,export] @ git+{repository}"
"""
START = """\
# Everything Is a Mapping

Each lesson is a notebook; the table below opens it. The folded cell between here and
there draws how the lessons build on each other, marks what you have passed so far, and
says where to go on: click on this text, then press Shift and Enter twice. The minutes
are those to read a lesson and those to do its exercises and its quiz.
"""
OVERVIEW = """\
# The lessons as a map, and where to go on.
from mtmm_lib.lesson import overview

overview()
"""
TABLE = re.compile(r"(?<=<!-- lessons -->\n).*?(?=<!-- /lessons -->)", re.DOTALL)


def launch_links(name: str) -> str:
    """Links that open the notebook elsewhere, for readers who meet it outside the
    site."""
    site = repository().removeprefix("https://github.com/")
    path = f"chapters/{name}.ipynb"
    return (
        "Open this lesson in "
        f"[Colab](https://colab.research.google.com/github/{site}/blob/main/{path}) or "
        f"[Binder](https://mybinder.org/v2/gh/{site}/main?urlpath=lab/tree/{path})."
    )


def portable(text: str) -> str:
    """MyST that JupyterLab understands as the site does, and that Colab and GitHub show
    well too.

    Citations become links, labelled equations stand between dollars, and the content of
    directives is text instead of a block of code.
    """
    text = re.sub(
        r"^```\{math\}\n:label: (\S+)\n+(.*?)\n```$",
        r"$$\n\2\n$$ (\1)",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    directive = (
        r"^(?P<fence>`{3,})(?P<head>\{[a-z-]+\}[^\n]*)\n(?P<body>.*?)\n(?P=fence)$"
    )
    text = re.sub(
        directive, r":::\g<head>\n\g<body>\n:::", text, flags=re.DOTALL | re.MULTILINE
    )
    return to_links(text)


def fold(cell: NotebookNode) -> None:
    """Fold the code of a cell everywhere: on the site behind its first line, a comment;
    in JupyterLab, which shows that line; in Colab, which shows a button.

    A cell has the same metadata for readers and for the site: they are part of what an
    executed notebook is found by.
    """
    prompt = "Code · " + cell.source.splitlines()[0].removeprefix("#").strip()
    cell.metadata.update(
        mystnb={"code_prompt_show": prompt, "code_prompt_hide": prompt},
        jupyter={"source_hidden": True},
        cellView="form",
    )


def lesson_notebook(lesson: Lesson, *, site: bool = False) -> NotebookNode:
    """A lesson as a notebook, without outputs: for readers, or for the site's builder.

    The builder gets the text as it is written, with its roles and directives, and
    numbers the pages itself. For readers the text is `portable`.
    """
    title, *rest = deepcopy(source(lesson).cells)
    # on the site: there the page has buttons, and nothing to install
    hidden = {"tags": ["remove-cell"]}
    install = new_code_cell(INSTALL.format(repository=repository()).strip())
    install.metadata = {**hidden, "jupyter": {"source_hidden": True}}
    cells = [
        title,
        new_markdown_cell(launch_links(lesson.name), metadata=hidden),
        install,
        *rest,
    ]
    heading = lesson.title if site else f"{lesson.number} · {lesson.title}"
    for cell in cells:
        if cell.cell_type == "markdown":
            text = filled(cell.source, lesson, heading)
            cell.source = text if site else portable(text)
        else:
            cell.outputs, cell.execution_count = [], None
            if is_folded(cell):
                fold(cell)
    return _derived(cells)


def start_notebook() -> NotebookNode:
    """The page that `make lab` opens: the lessons as links, for whoever has run nothing
    yet, and in a folded cell the map with the reader's progress."""
    overview = new_code_cell(OVERVIEW.strip(), metadata={"tags": ["hide-input"]})
    fold(overview)
    below = new_markdown_cell(f"## The lessons\n\n{table('').strip()}")
    return _derived([new_markdown_cell(START.strip()), overview, below])


def _derived(cells: list[NotebookNode]) -> NotebookNode:
    """A notebook of these cells, which says that nobody has written in it yet."""
    seen: Counter[str] = Counter()
    for cell in cells:
        # An id made of the content: stable when other cells are added or moved.
        own = _hash(f"{cell.cell_type}\n{cell.source}")[:8]
        cell.id = f"{own}-{seen[own]}" if seen[own] else own
        seen[own] += 1
    metadata = {
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
        "mtmm": {"derived": digest(cells)},
    }
    made = new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)
    nbformat.validate(made)
    return made


def start_page() -> Path:
    """Where the start page lies."""
    return CHAPTERS / "start.ipynb"


def derive(lesson: Lesson) -> str:
    """The text of the notebook that belongs to a lesson."""
    return written(lesson_notebook(lesson))


def written(made: NotebookNode) -> str:
    """A notebook as text."""
    return nbformat.writes(made, indent=1, ensure_ascii=False) + "\n"


def digest(cells: Iterable[dict[str, Any]]) -> str:
    """What tells cells in which somebody wrote from those that were derived: a hash of
    their kinds and texts. An editor's own ids and metadata do not count."""
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return _hash(json.dumps(texts))[:16]


def untouched(path: Path) -> bool:
    """Whether a notebook is one that was derived, by this version or an older one, and
    that nobody has run or changed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        cells = found["cells"]
        used = any(
            cell.get("outputs")
            or cell.get("execution_count")
            or cell.get("attachments")
            for cell in cells
        )
        return not used and found["metadata"]["mtmm"]["derived"] == digest(cells)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # no notebook, or not one of ours: somebody else's work


def table(folder: str) -> str:
    """The lessons with a line each, for a page that sees the notebooks in a folder."""
    below = direct(tuple(book.lessons().values()))
    text = "| | Lesson | | Builds on | Minutes |\n|---|---|---|---|---|\n"
    for lesson in lessons():
        needs = ", ".join(book.lesson(slug).number for slug in below[lesson.slug])
        takes = minutes(source(lesson))
        both = f"{takes.read}\N{NO-BREAK SPACE}+\N{NO-BREAK SPACE}{takes.do}"
        text += (
            f"| {lesson.number} | [{lesson.title}]({folder}{lesson.name}.ipynb) "
            f"| {lesson.card} | {needs} | {both} |\n"
        )
    return text


def readme() -> str:
    """The README with the present table, and present names of notebooks elsewhere."""
    text = TABLE.sub(lambda _: table("chapters/"), README.read_text(encoding="utf-8"))
    for lesson in lessons():
        text = re.sub(rf"\b\d\d-{lesson.slug}\.ipynb", f"{lesson.name}.ipynb", text)
    return text


def wanted() -> dict[Path, str]:
    """Every file that is made of the lessons, with the text that it should have."""
    return {
        README: readme(),
        start_page(): written(start_notebook()),
        **{notebook(each): derive(each) for each in lessons()},
    }


def left_over() -> list[Path]:
    """Notebooks of lessons that are gone or have another number now. What else a reader
    keeps in the folder is the reader's."""
    present = {start_page(), *map(notebook, lessons())}
    return [
        path
        for path in sorted(CHAPTERS.glob("*.ipynb"))
        if path not in present and (present_name(path) or untouched(path))
    ]


def present_name(path: Path) -> str:
    """The name that a notebook's lesson has now; empty where it is no lesson's."""
    slug = path.stem.partition("-")[2]
    return next((each.name for each in lessons() if each.slug == slug), "")


def holds(path: Path, text: str) -> bool:
    """Whether a file has this text, and ends its lines in whichever way."""
    return path.read_bytes().replace(b"\r\n", b"\n") == text.encode()


def stale() -> list[str]:
    """What is wrong with the derived files, one sentence each; empty when they are in
    step."""
    problems = [
        f"{path.relative_to(ROOT)} has no source in chapters/src"
        for path in left_over()
    ]
    for path, text in wanted().items():
        if not path.exists():
            problems.append(f"{path.relative_to(ROOT)} is missing")
        elif not holds(path, text):
            problems.append(f"{path.relative_to(ROOT)} is out of step with its source")
    return sorted(problems)


def set_aside(path: Path, name: str) -> None:
    """Keep a notebook as the reader's own copy of the lesson with this name."""
    numbers = ("", *(f"-{n}" for n in range(2, 1000)))
    names = (path.with_name(f"{name}{number}{YOURS}.ipynb") for number in numbers)
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    print(f"Somebody has worked with {path.name}: kept as {aside.name}")


def write() -> list[Path]:
    """Write every file that is missing or out of step, remove derived notebooks that
    belong to no lesson now; return the ones written."""
    for path in left_over():
        if untouched(path):
            path.unlink()
        else:
            set_aside(path, present_name(path))
    written = []
    for path, text in wanted().items():
        if path.exists():
            if holds(path, text):
                continue
            if path != README and not untouched(path):
                set_aside(path, path.stem)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail when a file is out of step",
    )
    if parser.parse_args().check:
        if problems := stale():
            raise SystemExit("\n".join([*problems, "Run `make chapters`."]))
        return
    for path in write():
        print("written:", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
