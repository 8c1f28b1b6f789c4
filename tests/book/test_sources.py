"""Notebooks, their sources, and the files that are made from others."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from mtmm_lib.lesson import book
from tools import chapters, project
from tools.project import ROOT, lessons, repository, tracked


def test_notebooks_are_in_step_with_their_sources():
    assert chapters.stale() == []


def test_deriving_twice_gives_the_same_bytes():
    for lesson in lessons():
        assert chapters.derive(lesson) == chapters.derive(lesson)


def test_stale_and_left_over_notebooks_are_found(folder):
    assert chapters.stale() == []
    first, second = (project.notebook(lesson) for lesson in chapters.lessons())
    shutil.copy(second, folder / "99-orphan.ipynb")
    first.write_text("{}")
    second.unlink()
    assert chapters.stale() == [
        f"{first.name} is out of step with its source",
        f"{second.name} is missing",
        "99-orphan.ipynb has no source in chapters/src",
    ]


def test_notebooks_hold_no_outputs_and_no_pairing():
    for name in tracked("*.ipynb"):
        notebook = json.loads((ROOT / name).read_text(encoding="utf-8"))
        assert set(notebook["metadata"]) == {"kernelspec", "language_info", "mtmm"}, (
            name
        )
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert all(
            cell["outputs"] == [] and cell["execution_count"] is None for cell in code
        ), name


def test_a_notebook_installs_the_library_first_and_only_where_it_is_missing():
    for path in project.notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        first = "".join(
            next(cell for cell in cells if cell["cell_type"] == "code")["source"]
        )
        assert (
            'if find_spec("mtmm_lib") is None' in first
            and f"git+{repository()}" in first
        )
        shown = []
        shell = first.replace("%pip", "shown.append(").replace(
            f'{repository()}"', f'{repository()}")'
        )
        assert shell != first
        # the library is here: nothing
        exec(re.sub(r"append\(.*\)", "append(1)", shell), {"shown": shown})
        assert shown == []


def rows() -> list[tuple[str, str]]:
    """The table of derived files in CONTRIBUTING: file and check."""
    text = (
        (ROOT / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .split("| Checked by |\n|---|---|---|---|\n")[1]
    )
    cells = [
        re.findall(r"`([^`]+)`", row) for row in text.split("\n\n")[0].splitlines()
    ]
    return [(row[0], row[-1]) for row in cells]


@pytest.mark.parametrize("file, check", rows())
def test_every_derived_file_is_fresh(file, check):
    assert list(ROOT.glob(file)), (
        f"{file} is in the table of derived files, but there is none"
    )
    command = [sys.executable, *shlex.split(check)[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_recipe_is_in_the_table():
    files = [file for file, _ in rows()]
    made = [
        path.relative_to(ROOT).as_posix() for path in (ROOT / "data").rglob("*.npz")
    ]
    assert set(made) <= set(files)
    assert "chapters/*.ipynb" in files and "constraints.txt" in files


def test_a_source_saved_in_jupyterlab_keeps_what_it_says_about_its_lesson(tmp_path):
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from jupytext.sync_contentsmanager import (
        build_sync_jupytext_contents_manager_class,
    )

    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(book.FOLDER, tmp_path / "src")
    manager = build_sync_jupytext_contents_manager_class(LargeFileManager)()
    manager.root_dir = str(tmp_path)
    for lesson in lessons():
        name = f"src/{lesson.slug}/lesson.md"
        before = (tmp_path / name).read_text(encoding="utf-8")
        manager.save(manager.get(name, type="notebook"), name)
        after = (tmp_path / name).read_text(encoding="utf-8")
        assert after != before, "it has been written"
        for text in (before, after):
            head = yaml.safe_load(text.split("---\n")[1])
            assert head["lesson"]["title"] == lesson.title
        assert after.split("\n---\n", 1)[1] == before.split("\n---\n", 1)[1]
