"""A small book, for tests of what derives its files."""

import pytest

from tools import chapters, project
from tools.project import lessons


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A book of two lessons, with its notebooks in a folder of the test's."""
    for module, name in (
        (chapters, "ROOT"),
        (chapters, "CHAPTERS"),
        (project, "CHAPTERS"),
    ):
        monkeypatch.setattr(module, name, tmp_path)
    monkeypatch.setattr(chapters, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("<!-- lessons -->\n<!-- /lessons -->\n")
    few = lessons()[:2]
    monkeypatch.setattr(chapters, "lessons", lambda: few)
    chapters.write()
    return tmp_path
