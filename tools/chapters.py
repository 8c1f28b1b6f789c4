"""Derive ``chapters/NN-slug.ipynb`` from ``chapters/src/slug/lesson.md``.

Authors write MyST Markdown; readers run notebooks. A derived notebook has no outputs
and no pairing metadata (who saves answers must not overwrite a source), and the same
source always gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtmm_lib.lesson.book import Lesson
from tools.citations import to_links
from tools.project import CHAPTERS, ROOT, lessons, notebook, repository

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
YOURS = "-yours"  # the end of the name of a reader's own copy; git ignores these
INSTALL = """\
# In Colab this installs the book's library; where it is present, it does nothing.
from importlib.util import find_spec

if find_spec("mtmm_lib") is None:
    %pip install --quiet "mtmm-lib[lesson,export] @ git+{repository}"
"""


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
    """MyST that the site and JupyterLab understand as before, and that Colab and GitHub
    show well too.

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


def derive(lesson: Lesson) -> str:
    """The text of the notebook that belongs to a lesson."""
    written = jupytext.read(lesson.folder / "lesson.md")
    title, *rest = written.cells
    # on the site: there the page has buttons, and nothing to install
    hidden = {"tags": ["remove-cell"]}
    cells = [
        title,
        new_markdown_cell(launch_links(lesson.name), metadata=hidden),
        new_code_cell(INSTALL.format(repository=repository()).strip(), metadata=hidden),
        *rest,
    ]
    seen: Counter[str] = Counter()
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = portable(cell.source)
        # An id made of the content: stable when other cells are added or moved.
        digest = hashlib.sha256(
            f"{cell.cell_type}\n{cell.source}".encode()
        ).hexdigest()[:8]
        cell.id = f"{digest}-{seen[digest]}" if seen[digest] else digest
        seen[digest] += 1
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    derived = new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)
    nbformat.validate(derived)
    return nbformat.writes(derived, indent=1, ensure_ascii=False) + "\n"


def stale() -> list[str]:
    """What is wrong with the derived notebooks, one sentence each; empty when they are
    in step."""
    wanted = {notebook(lesson): derive(lesson) for lesson in lessons()}
    kept = {path for path in CHAPTERS.glob("*.ipynb") if not path.stem.endswith(YOURS)}
    found = {path: path.read_text(encoding="utf-8") for path in kept}
    problems = [
        f"{path.relative_to(ROOT)} has no source in chapters/src"
        for path in found.keys() - wanted.keys()
    ]
    problems += [
        (
            f"{path.relative_to(ROOT)} is "
            f"{'missing' if path not in found else 'out of step with its source'}"
        )
        for path, text in wanted.items()
        if found.get(path) != text
    ]
    return sorted(problems)


def set_aside(path: Path) -> None:
    """Keep a notebook that a reader has run and saved: it may hold answers, and is
    never overwritten."""
    cells = nbformat.read(path, as_version=4).cells
    if any(
        cell.cell_type == "code" and (cell.outputs or cell.execution_count)
        for cell in cells
    ):
        names = (
            path.with_name(f"{path.stem}{number}{YOURS}.ipynb")
            for number in ("", *(f"-{n}" for n in range(2, 1000)))
        )
        aside = next(name for name in names if not name.exists())
        print(f"{path.name} has been run and saved: kept as {path.rename(aside).name}")


def write() -> list[Path]:
    """Write every notebook that is missing or out of step; return the ones written."""
    written = []
    for lesson in lessons():
        path, text = notebook(lesson), derive(lesson)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            if path.exists():
                set_aside(path)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail when a notebook is out of step",
    )
    if parser.parse_args().check:
        if problems := stale():
            raise SystemExit("\n".join([*problems, "Run `make chapters`."]))
        return
    for path in write():
        print("written:", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
