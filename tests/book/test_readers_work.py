"""What a reader wrote in a notebook is never lost, whatever derives notebooks anew; and
what nobody has written in leaves no copies behind."""

import json
import shutil
from dataclasses import replace

import pytest

from tools import book, chapters, project
from tools.project import lessons


@pytest.fixture
def path(folder):
    """The first lesson's notebook."""
    return project.notebook(chapters.lessons()[0])


def names(folder):
    return {path.name for path in folder.glob("*.ipynb")}


def change(path, edit):
    """Save a notebook after an edit, as JupyterLab does."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    edit(notebook)
    path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][-2]


def text(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"][-2]


def typed(notebook):
    code(notebook)["source"] = ["answer = 42\n", "answer"]


def run(notebook):
    shown = {"name": "stdout", "output_type": "stream", "text": ["42\n"]}
    code(notebook).update(execution_count=1, outputs=[shown])


def typed_and_run(notebook):
    typed(notebook)
    run(notebook)


def typed_run_and_cleared(notebook):
    typed_and_run(notebook)
    code(notebook).update(execution_count=None, outputs=[])


def noted_in_a_text(notebook):
    text(notebook)["source"] = ["I do not believe this."]


def with_a_picture(notebook):
    text(notebook)["attachments"] = {"image.png": {"image/png": "iVBORw0KGgo="}}


def with_a_cell_more(notebook):
    notebook["cells"].append({"cell_type": "raw", "metadata": {}, "source": "mine"})


def with_a_cell_less(notebook):
    notebook["cells"].remove(code(notebook))


def in_another_order(notebook):
    notebook["cells"].append(notebook["cells"].pop(3))


def of_unknown_origin(notebook):
    typed(notebook)
    notebook["metadata"] = {}


WORK = [
    typed,
    run,
    typed_and_run,
    typed_run_and_cleared,
    noted_in_a_text,
    with_a_picture,
    with_a_cell_more,
    with_a_cell_less,
    in_another_order,
    of_unknown_origin,
]


@pytest.mark.parametrize("edit", WORK, ids=lambda edit: edit.__name__)
def test_work_is_kept_beside_the_fresh_notebook(folder, path, edit, capsys):
    fresh = path.read_bytes()
    for kept in (f"{path.stem}-yours.ipynb", f"{path.stem}-2-yours.ipynb"):
        change(path, edit)
        work = path.read_bytes()
        assert chapters.write() == [path] and path.read_bytes() == fresh
        assert (folder / kept).read_bytes() == work
        assert kept in capsys.readouterr().out
    assert chapters.write() == [] and chapters.stale() == []
    assert len(names(folder)) == 5


def test_a_file_that_is_no_notebook_any_more_is_kept(folder, path):
    for damaged in (b'{"cells": [', b"[]", b'{"cells": [3]}', b"\xff"):
        path.write_bytes(damaged)
        chapters.write()
        (kept,) = folder.glob("*-yours.ipynb")
        assert kept.read_bytes() == damaged
        kept.unlink()


def another_editor(notebook):
    """What VS Code writes: ids and metadata of its own, texts in one piece."""
    notebook["metadata"]["language_info"].update(version="3.11.7", file_extension=".py")
    notebook["metadata"]["vscode"] = {"interpreter": {"hash": "31f2"}}
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number}"
        cell["metadata"]["vscode"] = {"languageId": "python"}
        cell["source"] = "".join(cell["source"])


def an_older_version(notebook):
    """What was derived before the lesson's text changed."""
    text(notebook)["source"] = ["As it was once."]
    notebook["metadata"]["mtmm"]["derived"] = chapters.digest(notebook["cells"])


def written_and_taken_back(notebook):
    before = code(notebook)["source"]
    typed(notebook)
    code(notebook)["source"] = before


@pytest.mark.parametrize(
    "edit",
    [another_editor, an_older_version, written_and_taken_back],
    ids=lambda edit: edit.__name__,
)
def test_what_nobody_wrote_in_is_replaced_without_a_copy(folder, path, edit):
    fresh, before = path.read_bytes(), names(folder)
    change(path, edit)
    assert path.read_bytes() != fresh
    chapters.write()
    assert path.read_bytes() == fresh and names(folder) == before


@pytest.mark.parametrize("edit", [typed, another_editor], ids=lambda e: e.__name__)
def test_work_in_an_older_version_or_another_editor_is_kept(folder, path, edit):
    for first in (an_older_version, another_editor):
        change(path, first)
        change(path, edit)
        change(path, noted_in_a_text)
        work = path.read_bytes()
        chapters.write()
        (kept,) = folder.glob("*-yours.ipynb")
        assert kept.read_bytes() == work
        kept.unlink()


def test_work_stays_when_its_lesson_gets_another_number(folder, path, monkeypatch):
    first, second = chapters.lessons()
    change(path, typed)
    work = path.read_bytes()
    moved = [replace(second, number="00"), replace(first, number="01")]
    monkeypatch.setattr(chapters, "lessons", lambda: moved)
    chapters.write()
    assert names(folder) == {
        "start.ipynb",
        f"00-{second.slug}.ipynb",
        f"01-{first.slug}.ipynb",
        f"01-{first.slug}-yours.ipynb",
    }
    assert (folder / f"01-{first.slug}-yours.ipynb").read_bytes() == work
    assert chapters.stale() == []


def test_what_a_reader_keeps_in_the_folder_is_left_alone(folder, path):
    own = folder / f"{path.stem}-Copy1.ipynb"
    shutil.copy(path, own)
    change(own, typed)
    (folder / "notes.ipynb").write_text('{"cells": []}')
    before = {each: each.read_bytes() for each in folder.glob("*.ipynb")}
    assert chapters.write() == [] and chapters.stale() == []
    assert {each: each.read_bytes() for each in folder.glob("*.ipynb")} == before


def test_a_lesson_that_is_gone_takes_its_notebook_along(folder, path, monkeypatch):
    monkeypatch.setattr(chapters, "lessons", lambda: lessons()[1:2])
    assert chapters.stale() == [
        f"{path.name} has no source in chapters/src",
        "README.md is out of step with its source",
        "start.ipynb is out of step with its source",
    ]
    chapters.write()
    assert not path.exists() and chapters.stale() == []


def test_building_the_site_keeps_work_too(folder, path, monkeypatch):
    """`make book` derives notebooks first, by the same function."""

    def stop():
        raise SystemExit("far enough")

    monkeypatch.setattr(book.vendor, "fetch", stop)
    monkeypatch.setattr(book, "ROOT", folder)
    monkeypatch.setattr("sys.argv", ["book"])
    change(path, typed)
    work = path.read_bytes()
    with pytest.raises(SystemExit, match="far enough"):
        book.main()
    assert (folder / f"{path.stem}-yours.ipynb").read_bytes() == work


def test_the_start_page_is_kept_like_a_lesson(folder):
    start = chapters.start_page()
    fresh = start.read_bytes()
    change(start, with_a_cell_more)
    work = start.read_bytes()
    assert chapters.stale() == ["start.ipynb is out of step with its source"]
    assert chapters.write() == [start] and start.read_bytes() == fresh
    assert (folder / "start-yours.ipynb").read_bytes() == work
