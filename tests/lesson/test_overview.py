"""The start page: how far a reader has come, and where to go on."""

import re
from pathlib import Path

import pytest
from test_page import Balanced

from mtmm_lib.lesson import book, overview, page
from mtmm_lib.lesson.exercises import by_lesson
from mtmm_lib.lesson.overview import ahead
from tools.chapters import start_notebook
from tools.lesson import minutes, source


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MTMM_PROGRESS", str(tmp_path))
    return tmp_path


@pytest.fixture
def shown(monkeypatch):
    """What the start page shows now, as HTML and as plain text."""

    def now() -> tuple[str, str]:
        seen = []
        monkeypatch.setattr(
            page, "show", lambda html, plain: seen.append((html, plain))
        )
        overview()
        ((html, plain),) = seen
        Balanced(html)
        return html, plain

    return now


def note(place: Path, slug: str, passed: int | None = None) -> None:
    """Pass the first exercises of a lesson, or all."""
    for id in by_lesson()[slug][:passed]:
        (place / f"{id}.passed").touch()


def state(html: str, slug: str) -> str:
    """How a lesson's box looks: the words of its mark."""
    name = book.lesson(slug).name
    (box,) = re.findall(
        rf'<li [^>]*><a class="[^"]*" href="{name}.ipynb">.*?</a>', html
    )
    return "".join(re.findall(r"<em[^>]*>(.*)</em>", box))


def test_who_has_not_begun_begins_at_the_beginning(shown) -> None:
    html, plain = shown()
    first = next(iter(book.lessons().values()))
    assert f'Begin with <a href="{first.name}.ipynb">' in html
    assert plain.startswith(f"Begin with {first.number} · {first.title}: {first.card}")
    assert state(html, first.slug) == "→ go on here" and html.count("</em>") == 1


def test_passed_begun_and_next_are_marked(shown, place) -> None:
    first, second, third, fourth, fifth = list(book.lessons())[:5]
    note(place, first)
    note(place, second)
    note(place, fourth, 2)
    (place / f"{by_lesson()[fifth][0]}.tried").touch()
    html, plain = shown()
    assert state(html, first) == state(html, second) == "✓ passed"
    assert state(html, third) == "→ go on here"
    assert state(html, fourth) == f"◐ 2 of {len(by_lesson()[fourth])}"
    assert state(html, fifth) == f"◐ 0 of {len(by_lesson()[fifth])}"
    assert html.count("</em>") == 5
    passed = 2 + sum(len(by_lesson()[slug]) for slug in (first, second))
    among = sum(map(len, by_lesson().values()))
    assert f"Exercises passed: {passed} of {among}." in html
    assert plain.startswith(f"Go on with {book.lesson(third).number} · ")


def test_who_has_passed_everything_is_told_so(shown, place) -> None:
    for slug in book.lessons():
        note(place, slug)
    html, plain = shown()
    assert plain.startswith("You have passed every lesson.")
    assert html.count("✓ passed</em>") == len(book.lessons()) == html.count("</em>")


def test_the_way_through_the_book_meets_every_need() -> None:
    passed: set[str] = set()
    while lesson := ahead(passed):
        assert lesson.slug not in passed and set(lesson.needs) <= passed
        passed.add(lesson.slug)
    assert passed == set(book.lessons())


def test_who_skipped_a_lesson_goes_on_behind_the_last_one_passed() -> None:
    first, second, *others = book.lessons()
    assert ahead({second}).slug == others[0]
    skipped = set(book.lessons()) - {first}
    assert ahead(skipped).slug == first, "and comes back in the end"
    needy = next(each for each in book.lessons().values() if each.needs)
    assert ahead(set(book.lessons()) - set(needy.needs) - {needy.slug}) != needy


def test_nothing_is_dead_before_the_folded_cell_runs() -> None:
    words, code, table = start_notebook().cells
    assert code.metadata["jupyter"] == {"source_hidden": True}
    assert "hide-input" in code.metadata["tags"] and code.outputs == []
    for lesson in book.lessons().values():
        row = f"| {lesson.number} | [{lesson.title}]({lesson.name}.ipynb) | "
        assert row + lesson.card in table.source
        takes = minutes(source(lesson))
        assert f"| {takes.read}\xa0+\xa0{takes.do} |" in table.source
    assert not re.search(r"\]\((?!\d\d-[a-z-]+\.ipynb\))", words.source + table.source)


def test_the_folded_cell_runs(shown, monkeypatch) -> None:
    (code,) = [cell for cell in start_notebook().cells if cell.cell_type == "code"]
    seen = []
    monkeypatch.setattr(page, "show", lambda html, plain: seen.append(html))
    exec(code.source, {})
    assert seen == [shown()[0]]
