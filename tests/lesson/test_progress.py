"""Noted progress: by readers only, safe against a killed process and against several
notebooks at once."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from test_page import Balanced

from mtmm_lib.lesson import book, check, exercises, forget_progress, page, start
from mtmm_lib.lesson.exercises import by_lesson
from tools.lesson import source

# the package shows the function of that name
progress = importlib.import_module("mtmm_lib.lesson.progress")
ROOT = Path(__file__).parents[2]

RIGHT = "lambda body, heads: (len(heads) * body + sum(heads)) / (body + sum(heads))"
WRONG = "lambda body, heads: len(heads)"

FIRST = by_lesson()["everything-is-a-mapping"]


def open_but(passed: str) -> str:
    return ", ".join(id for id in FIRST if id != passed)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder of the test's own; the marks of who runs the tests stay as they are."""
    monkeypatch.setenv("MTMM_PROGRESS", str(tmp_path / "of" / "progress"))
    return tmp_path / "of" / "progress"


@pytest.fixture
def reader(monkeypatch) -> None:
    monkeypatch.setattr(page, "attended", lambda: True)


def marks(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()} if place.exists() else set()


def notebook(*cells: str):
    code = ["from mtmm_lib.lesson import check, progress, start", *cells]
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in code]
    )


async def run(lesson, attended: bool) -> list[str]:
    """Execute a notebook in a kernel of its own, as a front end with a reader does or
    not; what it shows."""
    client = NotebookClient(lesson, timeout=120, kernel_name="python3")
    async with client.async_setup_kernel(env=dict(os.environ)):
        client.kc.allow_stdin = attended
        for number, cell in enumerate(lesson.cells):
            await client.async_execute_cell(cell, number)
    return [
        "".join(output.data["text/plain"] for output in cell.outputs)
        for cell in lesson.cells[1:]
    ]


def finished(work):
    """The result of a coroutine; in a thread of its own, since an open browser has a
    loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


CHECK = 'check("count-saving", {})'.format


def test_without_a_home_directory_marks_are_temporary(
    monkeypatch, tmp_path, reader
) -> None:
    """Nothing is written into the folder in which a lesson happens to run."""
    import platformdirs

    monkeypatch.setenv("MTMM_PROGRESS", "")
    monkeypatch.setattr(
        platformdirs, "user_data_path", lambda *_, **__: Path("~/.local/share/mtmm")
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    assert progress.folder().is_relative_to(tmp_path / "temporary")
    assert "passed: 1 of" in progress.note("count-saving", True)
    assert not (tmp_path / "~").exists()


def test_two_notebooks_that_are_open_at_once(place) -> None:
    """One passes what the other fails, in one moment or another; the pass stays."""
    first = notebook(
        CHECK(WRONG),
        CHECK(RIGHT),
        'check("masked-loss", 3)',
        'start("everything-is-a-mapping")',
    )
    other = notebook(CHECK(RIGHT), CHECK(WRONG), 'check("break-even", 3)', "progress()")

    async def both() -> list[list[str]]:
        return await asyncio.gather(
            run(first, attended=True), run(other, attended=True)
        )

    (wrong, right, *_, began), (*_, shown) = finished(both())
    assert marks(place) == {
        "count-saving.passed",
        "count-saving.tried",
        "masked-loss.tried",
        "break-even.tried",
    }
    stands = f"Exercises of chapter 01 passed: 1 of {len(FIRST)}."
    assert "passed" not in wrong and right.startswith(
        f"✓ Correct. {stands} Open: {open_but('count-saving')}"
    )
    assert began.splitlines()[-1].startswith(stands)
    assert (
        "✓ count-saving" in shown
        and "◐ break-even" in shown
        and "○ which-idea" in shown
    )


def test_a_notebook_without_a_reader_notes_and_shows_nothing(place) -> None:
    """So are notebooks run that build the site, that test, and that grade."""
    place.mkdir(parents=True)
    (place / "which-arrow.passed").touch()
    right, began = finished(
        run(notebook(CHECK(RIGHT), 'start("everything-is-a-mapping")'), attended=False)
    )
    assert marks(place) == {"which-arrow.passed"}
    assert right == "✓ Correct." and "passed" not in began


WRITER = """
import importlib, itertools, sys
progress = importlib.import_module("mtmm_lib.lesson.progress")
progress.page.attended = lambda: True
ids = [id for ids in progress.by_lesson().values() for id in ids]
own, rounds = int(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for i in range(rounds) if rounds else itertools.count():
    id, passed = ids[(own + i) % len(ids)], i % 4 == own
    said = progress.note(id, passed)
    print(id, passed, said, sep=";", flush=True)
"""


def writers(count: int, rounds: int = 0) -> list[subprocess.Popen]:
    """Processes that note answers, as fast as they can from the same moment on."""
    command = [sys.executable, "-c", WRITER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([*command, str(own), str(rounds)], cwd=ROOT, **pipes)
        for own in range(count)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def noted(lines: list[str]) -> set[str]:
    said = [line.split(";") for line in lines]
    assert not any("could not" in words for *_, words in said)
    return {
        f"{id}.{'passed' if passed == 'True' else 'tried'}" for id, passed, _ in said
    }


def test_no_process_loses_what_another_has_noted(place) -> None:
    said = [process.communicate()[0].splitlines() for process in writers(3, rounds=60)]
    assert all(len(lines) == 60 for lines in said)
    assert marks(place) == set().union(*map(noted, said))


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="Windows knows no such signal"
)
def test_a_killed_process_leaves_whole_marks_and_keeps_what_it_said(
    place, capsys
) -> None:
    (process,) = writers(1)
    lines = [process.stdout.readline() for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    lines += process.communicate()[0].splitlines(keepends=True)
    whole = [line.strip() for line in lines if line.endswith("\n")]
    every = {
        f"{id}.{kind}"
        for ids in by_lesson().values()
        for id in ids
        for kind in ("passed", "tried")
    }
    assert noted(whole) <= marks(place) <= every
    assert all(path.stat().st_size == 0 for path in place.iterdir())
    progress.progress()
    assert capsys.readouterr().out.startswith("Exercises passed: ")


class TestCheck:
    @pytest.mark.parametrize("stub", [..., lambda body, heads: None])
    def test_a_stub_is_no_attempt(self, place, reader, stub) -> None:
        check("count-saving", stub)
        check("no-such-exercise", 3)
        assert marks(place) == set()

    def test_what_was_passed_stays_passed(self, place, reader, capsys) -> None:
        check("count-saving", eval(WRONG))
        assert progress.summary("everything-is-a-mapping") == (
            f"Exercises of chapter 01 passed: 0 of {len(FIRST)}. "
            f"Open: {', '.join(FIRST)}."
        )
        check("count-saving", eval(RIGHT))
        check("count-saving", eval(WRONG))
        stands = progress.summary("everything-is-a-mapping")
        assert stands.startswith(
            f"Exercises of chapter 01 passed: 1 of {len(FIRST)}. "
            f"Open: {open_but('count-saving')}"
        )
        assert capsys.readouterr().out.splitlines()[1].endswith(stands)

    def test_when_all_are_passed_none_is_open(self, place, reader) -> None:
        for id in by_lesson()["everything-is-a-mapping"]:
            progress.note(id, True)
        assert (
            progress.summary("everything-is-a-mapping")
            == f"Exercises of chapter 01 passed: {len(FIRST)} of {len(FIRST)}."
        )

    def test_a_folder_that_cannot_be_written_costs_no_feedback(
        self, place, reader, capsys
    ) -> None:
        place.parent.write_text("a file stands in its place")
        assert check("count-saving", eval(RIGHT)).passed
        said = capsys.readouterr().out
        assert (
            said.startswith("✓ Correct. (This could not be noted in ")
            and str(place) in said
        )
        start("everything-is-a-mapping")
        progress.progress()
        assert "passed: 0 of" in capsys.readouterr().out


def test_strange_things_in_the_folder_are_left_alone(place, reader, capsys) -> None:
    # not how a mark is made, but it says the same
    (place / "which-arrow.passed").mkdir(parents=True)
    (place / "of-an-older-book.passed").touch()
    (place / "letter.txt").write_bytes(b"\xff\x00")
    progress.progress()
    row = "".join(f"  {'✓' if id == 'which-arrow' else '○'} {id}" for id in FIRST)
    assert f"01  1 of {len(FIRST)}{row}" in capsys.readouterr().out
    (place / "which-arrow.passed").rmdir()
    forget_progress()
    assert marks(place) == {"letter.txt"}


def test_forgetting_takes_one_call(place, reader, capsys) -> None:
    for id, passed in (
        ("which-arrow", True),
        ("which-arrow", False),
        ("break-even", False),
    ):
        progress.note(id, passed)
    for words in ("about 2 exercises", "about 0 exercises"):
        forget_progress()
        assert capsys.readouterr().out == f"Forgotten: what was noted {words}.\n"
    assert marks(place) == set() and progress.summary("everything-is-a-mapping") == ""


def test_the_table_says_in_words_what_it_shows(place, reader, monkeypatch) -> None:
    shown = []
    monkeypatch.setattr(
        progress.page, "show", lambda html, plain: shown.append((html, plain))
    )
    progress.progress()
    progress.note("which-arrow", True)
    progress.note("masked-loss", False)
    progress.progress()
    (before, _), (html, plain) = shown
    assert (
        "<table" not in before
        and f"passed: 0 of {sum(map(len, by_lesson().values()))}" in before
    )
    text = Balanced(html).text
    for words in (
        "✓ which-arrow: passed",
        "◐ masked-loss: tried",
        "○ count-saving: not yet",
        f"1 of {len(FIRST)}",
    ):
        assert words in text
    assert (
        "Not begun: chapter" in plain
        and str(place) in plain
        and "forget_progress()" in plain
    )


def test_the_folder_is_the_users_own(monkeypatch, tmp_path) -> None:
    from platformdirs import user_data_path

    monkeypatch.delenv("MTMM_PROGRESS")
    for name in ("XDG_DATA_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    assert progress.folder() == user_data_path("mtmm", appauthor=False) / "progress"
    assert progress.folder().parents[1] != ROOT


def test_every_exercise_has_the_chapter_of_its_source() -> None:
    for chapter, ids in by_lesson().items():
        assert ids == list(source(book.lesson(chapter)).exercises)
    assert sum(map(len, by_lesson().values())) == len(exercises.exercises())


def test_no_lesson_shows_or_deletes_progress_by_itself() -> None:
    for path in [*book.FOLDER.glob("*/lesson.md"), ROOT / "index.md"]:
        assert "progress()" not in path.read_text(encoding="utf-8"), path.name
