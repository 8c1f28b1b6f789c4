"""The gates close: a notebook that fails, a claim that is false and a site with a
warning stop the build."""

import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mtmm_lib.lesson import book as lesson_book
from tools import book, chapters, execute
from tools.project import ROOT, lessons, notebook

FALSE_CLAIM = 'claim("Water runs uphill", at_least(height, 1.0))'
FAILING = {
    "error": (
        ["seven = 7", "[][seven]"],
        "code cell 2 of 2 (`[][seven]`): IndexError: list index out of range",
    ),
    "claim": (
        [
            "from mtmm_lib.lesson import at_least, claim\nheight = 0.5",
            FALSE_CLAIM,
            "never = 'reached'",
        ],
        f"code cell 2 of 3 (`{FALSE_CLAIM}`): ClaimError: Water runs uphill: 0.5: "
        "not at least 1",
    ),
}


def plant(folder, name, cells):
    path = folder / f"{name}.ipynb"
    notebook = new_notebook(
        cells=[new_markdown_cell("# Planted"), *map(new_code_cell, cells)],
        metadata={"kernelspec": chapters.KERNEL},
    )
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("name", FAILING)
def test_the_book_is_not_built_from_a_failing_notebook(tmp_path, name):
    cells, message = FAILING[name]
    path, good = plant(tmp_path, name, cells), plant(tmp_path, "good", ["2 + 2"])
    with pytest.raises(SystemExit) as stop:
        book.fill_cache(tmp_path / ".jupyter_cache-x", [good, path])
    assert f"{name}.ipynb: {message}" in str(stop.value)
    assert "good.ipynb" not in str(stop.value)


@pytest.mark.parametrize("name", FAILING)
def test_the_notebooks_run_fails(tmp_path, name):
    path = plant(tmp_path, name, FAILING[name][0])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval-lax",
        str(path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "1 failed" in done.stdout


def test_what_passes_is_executed_once_and_comes_with_its_outputs(tmp_path, monkeypatch):
    path, cache = plant(tmp_path, "good", ["2 + 2"]), tmp_path / ".jupyter_cache-x"
    first = book.fill_cache(cache, [path])
    monkeypatch.setattr(book, "execute", lambda *_: pytest.fail("executed again"))
    second = book.fill_cache(cache, [path])
    for executed in (first, second):
        assert executed[path].cells[1].outputs[0].data["text/plain"] == "4"


def test_what_lies_beside_a_notebook_executes_it_alone(tmp_path, monkeypatch):
    first, second = (plant(tmp_path, name, [f"{name} = 2"]) for name in ("a", "b"))
    beside, executed = {first: "hint", second: "hint"}, []

    def noted(tasks, jobs):
        executed.append([path for path, *_ in tasks])
        return execute.execute(tasks, jobs)

    monkeypatch.setattr(book, "own_fingerprint", beside.get)
    monkeypatch.setattr(book, "execute", noted)
    cache = tmp_path / ".jupyter_cache-x"
    book.fill_cache(cache, [first, second])
    beside[second] = "another hint"
    book.fill_cache(cache, [first, second])
    book.fill_cache(cache, [first, second])
    assert executed == [[first, second], [second]]


def test_a_lesson_depends_on_its_own_folder_and_on_none_of_its_words(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(lesson_book, "FOLDER", tmp_path / "src")
    monkeypatch.setattr(book, "ROOT", tmp_path)
    shutil.copytree(ROOT / "chapters" / "src", tmp_path / "src")
    for name in ("mtmm_lib", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "constraints.txt").touch()

    def prints():
        return {each.slug: book.own_fingerprint(notebook(each)) for each in lessons()}

    def change(name, old, new):
        path = tmp_path / "src" / "hard-parameter-sharing" / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    before, library = prints(), book.fingerprint()
    change("lesson.md", "## Try it yourself", "## Your own")
    assert prints() == before
    for file, old, new in (
        ("exercises.py", "Round up", "Round upwards"),
        ("quiz.json", "feedback", "feedback "),
    ):
        change(file, old, new)
        after = prints()
        changed = {slug for slug in before if before[slug] != after[slug]}
        assert changed == {"hard-parameter-sharing"}
        before = after
    assert book.fingerprint() == library


def test_old_caches_are_removed_and_the_present_one_is_kept(tmp_path):
    path = plant(tmp_path, "good", ["2 + 2"])
    for number in range(6):
        book.fill_cache(tmp_path / f".jupyter_cache-{number}", [path])
    left = sorted(folder.name for folder in tmp_path.glob(".jupyter_cache-*"))
    assert len(left) == book.KEPT_CACHES and ".jupyter_cache-5" in left


def test_the_cache_depends_on_library_data_versions_and_seed(tmp_path, monkeypatch):
    for name in ("mtmm_lib/a.py", "data/b.npz", "constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(book, "ROOT", tmp_path)
    monkeypatch.delenv("MTMM_SEED", raising=False)
    seen = [book.fingerprint()]
    for name in ("mtmm_lib/a.py", "data/b.npz", "constraints.txt"):
        (tmp_path / name).write_text("after")
        seen.append(book.fingerprint())
    monkeypatch.setenv("MTMM_SEED", "1")
    seen.append(book.fingerprint())
    assert len(set(seen)) == 5
    (tmp_path / "README.md").write_text("words")
    assert book.fingerprint() == seen[-1]


def test_runs_go_on_after_a_false_claim_where_they_are_told_to(tmp_path):
    path = plant(tmp_path, "claim", FAILING["claim"][0])
    (run,) = execute.execute([(path, "one", {})], 1, go_on_after=["ClaimError"])
    assert run.error is None and run.notebook.cells[-1].execution_count == 3


def test_a_warning_stops_the_site(tmp_path):
    (tmp_path / "_config.yml").write_text("title: Planted\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (tmp_path / "index.md").write_text("# Planted\n\nAll is well.\n")
    book.build(tmp_path / "cache", tmp_path)
    assert (tmp_path / "_build" / "html" / "index.html").exists()
    (tmp_path / "index.md").write_text("# Planted\n\n{ref}`nowhere`\n")
    with pytest.raises(SystemExit):
        book.build(tmp_path / "cache", tmp_path)
