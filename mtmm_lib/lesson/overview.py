"""What the start page shows: the lessons as a map, how far the reader has come, and
where to go on."""

from __future__ import annotations

from html import escape

from mtmm_lib.lesson import book, course_map, page
from mtmm_lib.lesson.book import Lesson
from mtmm_lib.lesson.course_map import Mark
from mtmm_lib.lesson.progress import OPEN, PASSED, SIGNS, TRIED, count, noted


def overview() -> None:
    """Show how the lessons build on each other, which of them you have passed or begun,
    and where to go on.

    A lesson counts as passed when all its exercises are. What `check` has noted about
    them stays on this machine; `progress()` lists it.
    """
    states = noted()
    lesson = ahead(
        {slug for slug, of in states.items() if set(of.values()) == {PASSED}}
    )
    marks = {}
    for slug, of in states.items():
        passed, among = count(of)
        if lesson is not None and slug == lesson.slug:
            marks[slug] = Mark("next", "→", "go on here")
        elif passed == among:
            marks[slug] = Mark(PASSED, SIGNS[PASSED], "passed")
        elif set(of.values()) != {OPEN}:
            marks[slug] = Mark(TRIED, SIGNS[TRIED], f"{passed} of {among}")
    head, words = _where(lesson, states)
    lessons = book.course()
    drawn = course_map.html(lessons, _address, marks)
    page.show(f"{head}{drawn}", f"{words}\n{course_map.alt(lessons, marks)}")


def ahead(passed: set[str]) -> Lesson | None:
    """The lesson to go on with: the first whose needs have been passed, beyond the last
    one passed where there is such a one, so that who skipped a lesson is not held
    back. `None` when all have been passed."""
    lessons = list(book.lessons().values())
    open_to = [
        each
        for each in lessons
        if each.slug not in passed and set(each.needs) <= passed
    ]
    last = max((each.number for each in lessons if each.slug in passed), default="")
    return next((each for each in open_to if each.number > last), None) or next(
        iter(open_to), None
    )


def _address(lesson: Lesson) -> str:
    return f"{lesson.name}.ipynb"


def _where(lesson: Lesson | None, states: dict[str, dict[str, str]]) -> tuple[str, str]:
    """How far the reader has come and where to go on, as HTML and as plain text."""
    passed, among = map(sum, zip(*map(count, states.values()), strict=True))
    far = f"Exercises passed: {passed} of {among}."
    if lesson is None:
        text = f"You have passed every lesson. {far}"
        return f"<p>{text}</p>", text
    name = f"{lesson.number} · {lesson.title}"
    how = "Go on" if passed else "Begin"
    return (
        f'<p class="mtmm-where">{how} with <a href="{_address(lesson)}">'
        f"{escape(name)}</a>: {escape(lesson.card)} {far}</p>",
        f"{how} with {name}: {lesson.card} {far}",
    )
