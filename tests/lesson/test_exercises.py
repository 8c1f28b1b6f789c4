"""Every exercise: the stub does not pass, the solution does, each typical mistake gets
its own hint."""

import runpy
from pathlib import Path

import pytest
import torch
from exercise_rules import problems

from mtmm_lib.lesson import book, exercises

CHAPTERS = sorted(book.FOLDER.glob("*/lesson.md"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.parent.name)
def test_exercises_of(chapter: Path) -> None:
    listed = (
        Path(__file__).parent
        / "mistakes"
        / f"{chapter.parent.name.replace('-', '_')}.py"
    )
    mistakes = runpy.run_path(str(listed))["MISTAKES"] if listed.exists() else {}
    assert (
        list(
            problems(chapter.read_text(encoding="utf-8"), mistakes, exercises.checks())
        )
        == []
    )


PLANTED = """
```{code-cell} ipython3
---
tags: [hide-input]
---
%matplotlib inline
import torch
from torch import nn

big = torch.zeros(10**12)  # never computed: it is neither an import nor a definition

def twice(x):
    return 2 * x

def needs(x=big):
    return x
```

```{exercise} Four times
:label: planted

Write `four(x)`.
```

```{code-cell} ipython3
:tags: [exercise]
def four(x):
    ...


check("planted", four)
```

````{solution} planted
:class: dropdown

Twice, twice.

```python
def four(x):
    return twice(twice(x))
```
````
"""
MISTAKES = {
    "planted": {
        "square": "def four(x):\n    return x ** 2",
        "`return x.fuor()`": "def four(x):\n    return x.fuor()",
    }
}


@pytest.fixture
def checks(monkeypatch):
    monkeypatch.setattr(exercises, "_CHECKS", dict(exercises.checks()))
    monkeypatch.setattr(exercises, "checks", lambda: exercises._CHECKS)

    @exercises.exercise("planted")
    def _(four):
        x = torch.randn(5)
        if torch.equal(four(x), x**2):
            raise exercises.Hint("That is the square.")
        if not torch.equal(four(x), 4 * x):
            raise exercises.Hint("Not four times.")

    return exercises._CHECKS


def test_a_whole_exercise_has_no_problem(checks) -> None:
    assert list(problems(PLANTED, MISTAKES, checks)) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "```{exercise} Four times\n:label: planted\n",
            "```{note}\n",
            "needs one {exercise}",
        ),
        ('check("planted", four)', "", "needs one code cell"),
        (
            'check("planted", four)',
            'check("other", four)',
            "other: it needs one {exercise}",
        ),
        ("```{solution} planted", "```{note}", "needs one {solution}"),
        ("```python", "```text", "needs one {solution}"),
        (":class: dropdown", "", "needs :class: dropdown"),
        ("    ...\n", "    return 4 * x\n", "the stub passes"),
        (
            "return twice(twice(x))",
            "return twice(x)",
            "the solution does not pass: Not four times.",
        ),
        (
            "return twice(twice(x))",
            "return big",
            "the solution does not pass: Your code stopped at line 2",
        ),
    ],
)
def test_a_broken_exercise_is_found(checks, old: str, new: str, problem: str) -> None:
    source = PLANTED.replace(old, new)
    assert source != PLANTED
    assert any(problem in found for found in problems(source, MISTAKES, checks))


@pytest.mark.parametrize(
    ("mistakes", "problem"),
    [
        ({}, "no typical mistakes"),
        ({"square": "def four(x):\n    return 4 * x"}, "passes"),
        (
            {"cube": "def four(x):\n    return x ** 2"},
            "gets another hint: That is the square.",
        ),
        (
            {
                "the square": MISTAKES["planted"]["square"],
                "square": MISTAKES["planted"]["square"],
            },
            "the same hint",
        ),
    ],
)
def test_broken_mistakes_are_found(
    checks, mistakes: dict[str, str], problem: str
) -> None:
    assert any(
        problem in found for found in problems(PLANTED, {"planted": mistakes}, checks)
    )
    assert any(
        "no such exercise" in found
        for found in problems("", {"planted": mistakes}, checks)
    )


def test_an_exercise_without_a_check_is_found(checks) -> None:
    del checks["planted"]
    assert list(problems(PLANTED, MISTAKES, checks)) == [
        "planted: it has no check in mtmm_lib/lesson/exercises"
    ]


def test_an_exercise_has_one_check(checks) -> None:
    with pytest.raises(ValueError, match="two checks"):
        exercises.exercise("planted")(lambda answer: None)


class TestJudge:
    """Whatever the answer is, there is feedback and no exception."""

    @pytest.mark.parametrize("stub", [None, ..., (1, ...), {"a": None}, [...]])
    def test_stub_value(self, checks, stub) -> None:
        feedback = exercises.judge("planted", stub)
        assert not feedback.passed and "stub" in feedback.hint

    @pytest.mark.parametrize("value", [None, ...])
    def test_stub_function(self, checks, value) -> None:
        assert "stub" in exercises.judge("planted", lambda x: value).hint

    def test_stub_raises(self, checks) -> None:
        def four(x):
            raise NotImplementedError

        assert "stub" in exercises.judge("planted", four).hint

    @pytest.mark.parametrize(
        "answer", [3, "four", torch.zeros(2), torch.nn.Linear(2, 2), int]
    )
    def test_another_kind_of_answer(self, checks, answer) -> None:
        feedback = exercises.judge("planted", answer)
        assert not feedback.passed and feedback.hint

    def test_an_exception_is_named_with_its_line(self, checks) -> None:
        def four(x):
            y = x + 1
            return y @ torch.zeros(7)

        hint = exercises.judge("planted", four).hint
        assert "`return y @ torch.zeros(7)`" in hint and "RuntimeError" in hint

    def test_an_unknown_id_gets_the_nearest(self, checks) -> None:
        assert "'planted'" in exercises.judge("plnted", 3).hint

    def test_the_lesson_keeps_its_random_state(self, checks) -> None:
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        assert exercises.judge("planted", lambda x: 4 * x).passed
        assert torch.equal(torch.rand(3), expected)

    def test_check_shows_what_judge_finds(self, checks, capsys) -> None:
        assert exercises.check("planted", lambda x: 4 * x) == exercises.Feedback(True)
        assert not exercises.check("planted", lambda x: x**2).passed
        assert capsys.readouterr().out == "✓ Correct.\nNot yet. That is the square.\n"
