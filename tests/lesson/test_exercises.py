"""Every exercise: the stub does not pass, the solution does, in any clothing; every
argument matters; each typical mistake gets its own hint."""

import ast
import inspect
import re
import sys
import threading

import pytest
import torch
from exercise_rules import (
    arguments_that_do_not_matter,
    clothes_that_do_not_pass,
    problems,
)

from mtmm_lib.lesson import book, check, checking, exercises
from mtmm_lib.lesson.checking import judge

LESSONS = pytest.mark.parametrize("slug", book.lessons())


def source(slug: str) -> str:
    return (book.lesson(slug).folder / "lesson.md").read_text(encoding="utf-8")


@LESSONS
def test_stub_solution_and_mistakes_of(slug: str) -> None:
    assert list(problems(source(slug))) == []


@LESSONS
def test_every_argument_matters_in(slug: str) -> None:
    assert list(arguments_that_do_not_matter(source(slug))) == []


@LESSONS
def test_right_answers_pass_in_any_clothing_in(slug: str) -> None:
    assert list(clothes_that_do_not_pass(source(slug))) == []


@LESSONS
def test_every_hint_is_one_text_with_fields(slug: str) -> None:
    """A text that is put together cannot be translated."""
    path = book.lesson(slug).folder / "exercises.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.JoinedStr), f"an f-string, line {node.lineno}"
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Hint":
            assert isinstance(node.args[0], (ast.Constant, ast.Name)), node.lineno


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

Write `four(x, more)`.
```

```{code-cell} ipython3
:tags: [exercise]
def four(x, more):
    ...


check("planted", four)
```

````{solution} planted
:class: dropdown

Twice, twice.

```python
def four(x, more):
    return twice(twice(x)) + more
```
````
"""
SQUARE = "That is the square."


def plant(inputs, mistakes, **how):
    @exercises.function("planted", inputs=inputs, mistakes=mistakes, **how)
    def four(x, more):
        return 4 * x + more


def inputs():
    return [(torch.randn(n), exercises.real(1, 2)) for n in (5, 3, 4)]


@pytest.fixture
def empty(monkeypatch):
    monkeypatch.setattr(exercises, "_EXERCISES", dict(exercises.exercises()))


@pytest.fixture
def planted(empty):
    plant(inputs, {SQUARE: lambda x, more: x**2 + more})


def test_a_whole_exercise_has_no_problem(planted) -> None:
    assert list(problems(PLANTED)) == []
    assert list(arguments_that_do_not_matter(PLANTED)) == []
    assert list(clothes_that_do_not_pass(PLANTED)) == []


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
        ("    ...\n", "    return 4 * x + more\n", "the stub passes"),
        (
            "return twice(twice(x)) + more",
            "return twice(x) + more",
            "the solution does not pass: With x = [",
        ),
        (
            "return twice(twice(x)) + more",
            "return big",
            "the solution does not pass: Your code stopped at line 2",
        ),
        ("planted", "nowhere", "nowhere: it is not in the lesson's exercises.py"),
    ],
)
def test_a_broken_exercise_is_found(planted, old: str, new: str, problem: str) -> None:
    text = PLANTED.replace(old, new)
    assert text != PLANTED
    assert any(problem in found for found in problems(text))


@pytest.mark.parametrize(
    ("mistakes", "problem"),
    [
        ({}, "no typical mistakes"),
        ({"Right.": lambda x, more: 4 * x + more}, "'Right.' passes"),
        (
            {SQUARE: lambda x, more: x**2, "Same.": lambda x, more: x**2},
            f"'Same.' gets another hint: {SQUARE}",
        ),
        ({SQUARE: ()}, f"nothing gets the hint '{SQUARE}'"),
        (
            {SQUARE: (lambda x, more: x**2, lambda x, more: 4 * x + more)},
            f"'{SQUARE}' passes",
        ),
    ],
)
def test_broken_mistakes_are_found(empty, mistakes, problem: str) -> None:
    plant(inputs, mistakes)
    assert any(problem in each for each in problems(PLANTED))


def test_an_argument_that_does_not_matter_is_found(empty) -> None:
    plant(lambda: [(torch.randn(3), 2.5) for _ in range(4)], {})
    assert list(arguments_that_do_not_matter(PLANTED)) == [
        "planted: more does not matter"
    ]


def test_clothes_that_do_not_pass_are_found(empty) -> None:
    @exercises.exercise("planted")
    def _(four) -> None:
        x = torch.randn(5, dtype=torch.float64)
        kept, value = x.clone(), four(x, 1.5)
        if value.dtype != x.dtype or not torch.equal(value, 4 * kept + 1.5):
            raise exercises.Hint("Not equal.")
        if not torch.equal(x, kept):
            raise exercises.Hint("It has changed x.")

    found = list(clothes_that_do_not_pass(PLANTED))
    for name in ("float32", "rounded", "an array", "lists and plain", "computed in"):
        assert any(name in each for each in found), name
    assert "planted: changing the arguments gets 'It has changed x.'" in found


def test_an_exercise_has_one_check(planted) -> None:
    with pytest.raises(ValueError, match="two checks"):
        exercises.exercise("planted")(lambda answer: None)


class TestJudge:
    """Whatever the answer is, there is feedback and no exception."""

    @pytest.mark.parametrize("stub", [None, ..., (1, ...), {"a": None}, [...]])
    def test_stub_value(self, planted, stub) -> None:
        feedback = judge("planted", stub)
        assert not (feedback.passed or feedback.attempt) and "stub" in feedback.hint

    @pytest.mark.parametrize("value", [None, ...])
    def test_stub_function(self, planted, value) -> None:
        assert "stub" in judge("planted", lambda x, more: value).hint

    def test_stub_raises(self, planted) -> None:
        def four(x, more):
            raise NotImplementedError

        assert "stub" in judge("planted", four).hint

    def test_what_pytorch_does_not_implement_is_no_stub(self, planted) -> None:
        feedback = judge("planted", lambda x, more: (x > 0).abs() + more)
        assert "NotImplementedError" in feedback.hint and feedback.attempt

    def test_a_forgotten_branch_is_no_stub(self, planted) -> None:
        feedback = judge("planted", lambda x, y: 4 * x + y if len(x) > 3 else None)
        assert "returns nothing" in feedback.hint and feedback.attempt
        assert "x = [" in feedback.hint  # the input of which it is true

    def test_nor_is_it_where_the_check_is_code(self, empty) -> None:
        exercises.exercise("planted")(lambda four: (four(1), four(2)))
        feedback = judge("planted", lambda x: x if x == 1 else None)
        assert "returns nothing" in feedback.hint and feedback.attempt
        assert "stub" in judge("planted", lambda x: None).hint

    @pytest.mark.parametrize("answer", [3, "four", torch.zeros(2), {}])
    def test_a_value_for_a_function(self, planted, answer) -> None:
        assert 'check("planted", four)' in judge("planted", answer).hint.replace(
            "'", '"'
        )

    @pytest.mark.parametrize("answer", [torch.nn.Linear(2, 2), int, lambda: 3])
    def test_another_kind_of_answer(self, planted, answer) -> None:
        feedback = judge("planted", answer)
        assert not feedback.passed and feedback.hint

    def test_an_exception_is_named_with_its_line(self, planted) -> None:
        def four(x, more):
            y = x + 1
            return y @ torch.zeros(7)

        hint = judge("planted", four).hint
        assert "`return y @ torch.zeros(7)`" in hint and "RuntimeError" in hint

    @pytest.mark.parametrize("end", [sys.exit, exit])
    def test_the_end_of_the_program_is_not_that_of_the_notebook(
        self, planted, end
    ) -> None:
        assert "ended the program" in judge("planted", lambda x, more: end()).hint

    def test_a_loop_without_end_is_stopped(self, planted, monkeypatch) -> None:
        monkeypatch.setattr(checking, "SECONDS", 0.2)
        caught = []

        def four(x, more):
            while True:
                try:
                    while True:
                        x = x + more
                except Exception as error:
                    caught.append(error)

        threads = threading.active_count()
        assert "a loop that never ends" in judge("planted", four).hint
        assert threading.active_count() == threads and not caught
        assert judge("planted", lambda x, more: 4 * x + more).passed

    def test_an_unknown_id_gets_the_nearest(self, planted) -> None:
        assert "'planted'" in judge("plnted", 3).hint

    @pytest.mark.parametrize("answer", [lambda x: x, {"a": 1}, 3])
    def test_exchanged_arguments_are_noticed(self, planted, answer) -> None:
        assert "name comes first: check('planted'" in judge(answer, "planted").hint

    def test_the_lesson_keeps_its_random_state(self, planted) -> None:
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        assert judge("planted", lambda x, more: 4 * x + more).passed
        assert torch.equal(torch.rand(3), expected)

    def test_check_shows_what_judge_finds(self, planted, capsys) -> None:
        right = check("planted", lambda x, more: 4 * x + more)
        assert right == checking.Feedback(True)
        assert not check("planted", lambda x, more: x**2 + more).passed
        assert capsys.readouterr().out == f"✓ Correct.\nNot yet. {SQUARE}\n"


class TestFunction:
    """What the judge of functions recognises, and what it says otherwise."""

    def test_a_mistake_on_most_inputs_is_recognised(self, planted) -> None:
        hint = judge("planted", lambda x, y: x**2 + y if len(x) > 3 else x).hint
        assert hint == SQUARE
        hint = judge("planted", lambda x, y: x**2 + y if len(x) > 4 else x).hint
        assert hint != SQUARE

    def test_values_that_differ_are_named(self, planted) -> None:
        hint = judge("planted", lambda x, more: torch.cat([4 * x[:2], x[2:]]) + more)
        assert "entry [2] of the result should be" in hint.hint
        assert "more = 1." in hint.hint

    def test_digits_enough_to_tell_two_values_apart(self, empty) -> None:
        @exercises.function("planted", inputs=lambda: [(1,)], mistakes={})
        def number(x):
            return 0.123456789

        hint = judge("planted", lambda x: 0.12350001).hint
        assert "should be 0.12346, but yours is 0.1235." in hint

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda x, more: (4 * x + more).sum(), "shape [5] was expected"),
            (lambda x, more: "4x", "4x, which cannot be compared"),
        ],
    )
    def test_another_kind_of_result(self, planted, answer, words: str) -> None:
        assert words in judge("planted", answer).hint

    def test_an_exercise_may_keep_its_values_to_itself(self, empty) -> None:
        plant(inputs, {}, differs="Try {more:.1f} and x = 0.")
        hint = judge("planted", lambda x, more: x).hint
        assert re.fullmatch(r"Try 1\.\d and x = 0\.", hint)

    def test_an_argument_may_be_changed_and_restored_but_not_lost(self, empty) -> None:
        plant(inputs, {}, unchanged="Leave x alone.")

        def undone(x, more):
            x *= 4
            value = x + more
            x /= 4
            return value

        def lost(x, more):
            x *= 4
            return x + more

        assert judge("planted", undone).passed
        assert judge("planted", lost).hint == "Leave x alone."

    def test_a_number_without_a_gradient_is_recognised(self, empty) -> None:
        def detached(x, more):
            return 4 * x.detach() + more

        plant(inputs, {"No gradient.": detached}, call=exercises.with_gradient(of=0))
        assert judge("planted", lambda x, more: 4 * x + more).passed
        assert (
            judge("planted", lambda x, y: (4 * x + y).tolist()).hint == "No gradient."
        )
        assert "stub" in judge("planted", lambda x, more: None).hint


def test_a_value_is_compared_and_not_told(empty) -> None:
    @exercises.function("planted", mistakes={"That is κ/2.": lambda: 3.0})
    def rate():
        return 2 / 6

    assert (
        judge("planted", 1 / 3).passed and judge("planted", torch.tensor(1 / 3)).passed
    )
    assert judge("planted", 3).hint == "That is κ/2."
    assert judge("planted", 0.5).hint == "It is not 0.5."
    assert "stub" in judge("planted", ...).hint


class TestLines:
    @pytest.fixture
    def two(self, empty):
        exercises.lines(
            "planted",
            {"first": "a", "second": "b"},
            {"“{line}” is no {given}.": exercises.confused("a", "c")},
            words=("a", "b", "c"),
        )

    @pytest.mark.parametrize(
        ("answer", "hint"),
        [
            ({"first": "a", "second": "b"}, ""),
            ({"first": "c", "second": "c"}, "“first” is no c."),
            ({"first": "b", "second": "c"}, "2 of 2 are not right yet; begin with"),
            (
                {"first": "a", "second": "d"},
                "'d' is not one of the answers, which are a",
            ),
            ({"first": "a", "second": [1]}, "[1] is not one of the answers"),
            ({"first": "a"}, "Keep the 2 lines"),
            ("a", "Keep the 2 lines"),
        ],
    )
    def test_lines(self, two, answer, hint: str) -> None:
        feedback = judge("planted", answer)
        assert hint in feedback.hint and feedback.passed == (not hint)

    def test_every_wrong_line_is_a_mistake_to_be_tried(self, two) -> None:
        mistakes = exercises.exercises()["planted"].mistakes
        assert [len(each) for each in mistakes.values()] == [1, 3]


def test_the_how_to_says_what_there_is() -> None:
    for name in ("function", "lines", "exercise", "confused", "with_gradient"):
        assert f"{name}(" in exercises.__doc__
    for name in inspect.signature(exercises.function).parameters:
        assert name in exercises.__doc__, name
