"""Pages of the site that are made from the executed notebooks and from the library; they are not kept in git."""

from __future__ import annotations

from pathlib import Path

from nbformat import NotebookNode

from tools.project import GENERATED


def pages(executed: dict[Path, NotebookNode]) -> dict[str, str]:
    """File name → text of every generated page."""
    return {}


def write(executed: dict[Path, NotebookNode]) -> None:
    """Write the pages that changed (an untouched file is not built again) and remove those of the past."""
    wanted = pages(executed)
    GENERATED.mkdir(parents=True, exist_ok=True)
    for path in GENERATED.rglob("*.md"):
        if path.relative_to(GENERATED).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
