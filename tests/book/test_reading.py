"""The one reader of lessons: what is in sight, and how long it takes."""

import pytest

from mtmm_lib.lesson import questions
from tools import chapters
from tools.lesson import Minutes, Source, minutes, words
from tools.project import lessons

LESSON = """\
# {{ title }}

*{{ minutes }} You need nothing.*

```{code-cell} ipython3
:tags: [hide-input]

# Setup: nothing
start("a-lesson")
```

Three plain words, and a hook.

## A finding

$$x = 1$$

```{math}
:label: eq-a-b
y = 2
```

:::{admonition} Why that is so
:class: dropdown
Folded words, and a proof.

$$z = 3$$
:::

```{code-cell} ipython3
guess("a-question", "Which one?", {"This.": "No."}, right="This.")

figure(fig, alt="Not said.", caption=f"Seen from {above} there.")
```

## Exercises

```{exercise} ★ One · 7 minutes
:label: one

Do it.
```

```{code-cell} ipython3
check("one", ...)
```

````{solution} one
:class: dropdown

Hidden.
````

## Quiz

```{code-cell} ipython3
quiz("a-lesson")
```
"""


@pytest.fixture
def lesson(monkeypatch):
    monkeypatch.setattr(questions, "load", {"a-lesson": [{}] * 6}.__getitem__)
    return Source(LESSON)


def test_what_has_to_be_unfolded_is_not_in_sight(lesson):
    assert "Three plain words" in lesson.prose and "Do it" in lesson.prose
    assert "proof" not in lesson.prose and "Hidden" not in lesson.prose
    assert [each.strip() for each in lesson.equations] == ["x = 1", "y = 2"]
    assert [code.split("(")[0] for code in lesson.visible] == [
        "guess",
        "check",
        "quiz",
    ]


def test_what_code_tells_a_reader_are_words_and_no_prose(lesson):
    assert words(lesson.spoken) == words("a-question Which one This No Seen from there")
    assert "Which one" not in lesson.prose


def test_sections(lesson):
    assert lesson.headings == ["A finding", "Exercises", "Quiz"]
    assert list(lesson.sections["A finding"].calls("guess"))
    assert not list(lesson.sections["Quiz"].calls("guess"))
    assert list(lesson.sections[""].calls("start"))
    assert "check" not in "".join(lesson.before_exercises.code)


def longer(words=0, equations=0, lines=0, minutes=7, folded=""):
    """The lesson with more in it."""
    text = LESSON.replace("· 7", f"· {minutes}")
    text = text.replace(
        "a hook.", "a hook. " + "word " * words + "\n\n$$x$$" * equations
    )
    return Source(text.replace("guess(", "n = 0\n" * lines + "guess("))


def test_minutes_add_up(lesson):
    assert minutes(lesson) == Minutes(read=5, do=15)  # 4.4 and 7 + 6
    # to the nearest five
    assert minutes(longer(words=5 * 180)) == Minutes(10, 15)
    assert minutes(longer(equations=5)) == Minutes(15, 15)
    assert minutes(longer(lines=5 * 12)) == Minutes(10, 15)
    assert minutes(longer(minutes=17)) == Minutes(5, 25)
    assert str(minutes(lesson)) == "5 minutes to read, 15 to do."


def test_what_is_folded_takes_no_minutes(lesson):
    more = LESSON.replace("start(", "n = 0\n" * 60 + "start(")
    more = more.replace("a proof.", "a proof. " + "word " * 1800)
    assert minutes(Source(more)) == minutes(lesson)


def test_a_lesson_of_the_first_edition_says_its_minutes_itself():
    by_hand = "*40 minutes to read, 35 to do. You need nothing.*"
    assert minutes(Source(by_hand)) == Minutes(40, 35)


def test_folded_cells_are_folded_in_every_notebook():
    cells = [
        cell
        for lesson in lessons()
        for site in (False, True)
        for cell in chapters.lesson_notebook(lesson, site=site).cells
        if "hide-input" in cell.metadata.get("tags", [])
    ]
    assert cells
    for cell in cells:
        first = cell.source.splitlines()[0]
        assert cell.metadata.jupyter == {"source_hidden": True}
        assert cell.metadata.cellView == "form"
        for prompt in ("code_prompt_show", "code_prompt_hide"):
            assert cell.metadata.mystnb[prompt] == first.replace("#", "Code ·", 1)


def test_readers_and_the_site_have_the_same_code_and_metadata():
    """An executed notebook is found by both."""
    for lesson in lessons():
        both = [
            [
                (cell.source, cell.metadata)
                for cell in chapters.lesson_notebook(lesson, site=site).cells
                if cell.cell_type == "code"
            ]
            for site in (False, True)
        ]
        assert both[0] == both[1]
