"""Which exercises a reader has tried and passed: noted on the reader's own machine, and
sent nowhere.

A mark is an empty file of its own, `count-saving.passed` say, in one folder. Making it
is all that noting takes. So a crash leaves no half a mark, notebooks that are open at
the same time cannot undo each other's, and there is no content that could be damaged.
"""

from __future__ import annotations

from functools import partial
from html import escape
from pathlib import Path

from mtmm_lib.environment import own_folder, variable
from mtmm_lib.lesson import book, page
from mtmm_lib.lesson.exercises import by_lesson

PASSED, TRIED, OPEN = "passed", "tried", "not yet"
SIGNS = {PASSED: "✓", TRIED: "◐", OPEN: "○"}


def folder() -> Path:
    """Where the marks lie: `MTMM_PROGRESS` if it is set, else the platform's place for
    a user's data; a temporary folder where there is no home directory."""
    if named := variable("MTMM_PROGRESS"):
        return Path(named)
    from platformdirs import user_data_path

    return own_folder(partial(user_data_path, appauthor=False), "mtmm") / "progress"


def note(id: str, passed: bool) -> str:
    """Note an answer that a reader gave to an exercise.

    Returns:
        for a right answer, where its chapter stands now; what went wrong, where nothing
        could be noted.
    """
    if not page.attended():
        return ""
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{id}.{PASSED if passed else TRIED}").touch()
    except OSError as error:
        return f"(This could not be noted in {place}: {error.strerror or error}.)"
    return (
        summary(next(chapter for chapter, ids in by_lesson().items() if id in ids))
        if passed
        else ""
    )


def summary(chapter: str) -> str:
    """How many exercises of a chapter have been passed, and which are open.

    Empty before one has been tried, and where no reader sits at the notebook, as when
    the site is built.
    """
    states = noted().get(chapter, {}) if page.attended() else {}
    if set(states.values()) <= {OPEN}:
        return ""
    left = [id for id, state in states.items() if state != PASSED]
    number = book.lesson(chapter).number
    text = "Exercises of chapter {} passed: {} of {}.".format(number, *count(states))
    return f"{text} Open: {', '.join(left)}." if left else text


def progress() -> None:
    """Show which exercises you have passed, tried and not tried yet, chapter by
    chapter.

    `check` notes it in a folder of your own on this machine. Nothing is sent anywhere,
    and `forget_progress()` deletes it. The environment variable `MTMM_PROGRESS` names
    another folder.
    """
    states = noted()
    begun = {
        chapter: of for chapter, of in states.items() if set(of.values()) != {OPEN}
    }
    others = [book.lesson(chapter).number for chapter in states if chapter not in begun]
    passed, all_ = (
        sum(counts) for counts in zip(*map(count, states.values()), strict=True)
    )
    head = f"Exercises passed: {passed} of {all_}"
    foot = (
        [" · ".join(f"{sign} {state}" for state, sign in SIGNS.items())]
        if begun
        else []
    )
    foot += (
        [f"Not begun: chapter{'s' * (len(others) > 1)} {', '.join(others)}."]
        if others
        else []
    )
    foot += [
        f"Noted in {folder()}, on this machine only; forget_progress() deletes it."
    ]
    html = (
        f'<table class="mtmm-progress"><caption>{head}</caption>{_rows(begun)}</table>'
        if begun
        else head
    )
    lines = [
        "  ".join(
            [
                book.lesson(chapter).number,
                "{} of {}".format(*count(of)),
                *(f"{SIGNS[of[id]]} {id}" for id in of),
            ]
        )
        for chapter, of in begun.items()
    ]
    page.show(
        f"{page.style('progress')}<div>{html}</div>"
        + "".join(f'<p class="mtmm-soft">{escape(line)}</p>' for line in foot),
        "\n".join([head, *lines, *foot]),
    )


def forget_progress() -> None:
    """Delete everything that `check` has noted about your exercises."""
    marks = [path for kind in (PASSED, TRIED) for path in folder().glob(f"*.{kind}")]
    for path in marks:
        path.unlink(missing_ok=True)  # another notebook may be forgetting, too
    count = len({path.stem for path in marks})
    text = f"Forgotten: what was noted about {count} exercise{'s' * (count != 1)}."
    page.show(f'<p role="status">{text}</p>', text)


def count(states: dict[str, str]) -> tuple[int, int]:
    """How many exercises of a chapter have been passed, and how many there are."""
    return sum(state == PASSED for state in states.values()), len(states)


def _rows(begun: dict[str, dict[str, str]]) -> str:
    """A head, and a row for each chapter. The state after a name is for those who hear
    the page."""
    columns = ("Chapter", "Passed", "Exercises")
    rows = (
        "<tr>" + "".join(f'<th scope="col">{name}</th>' for name in columns) + "</tr>"
    )
    for chapter, of in begun.items():
        items = "".join(
            f'<li class="{state.split()[0]}"><span '
            f'aria-hidden="true">{SIGNS[state]}</span> {escape(id)}'
            f"<span>: {state}</span></li>"
            for id, state in of.items()
        )
        rows += '<tr><th scope="row">{}</th><td>{} of {}</td>'.format(
            book.lesson(chapter).number, *count(of)
        )
        rows += f'<td><ul role="list">{items}</ul></td></tr>'
    return rows


def noted() -> dict[str, dict[str, str]]:
    """Chapter → exercise → state: `PASSED`, `TRIED` or `OPEN`."""
    try:
        marks = {path.name for path in folder().iterdir()}
    except OSError:  # no such folder, as long as nothing has been noted
        marks = set()
    return {
        chapter: {
            id: next((s for s in (PASSED, TRIED) if f"{id}.{s}" in marks), OPEN)
            for id in ids
        }
        for chapter, ids in by_lesson().items()
    }
