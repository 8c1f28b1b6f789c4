"""The rules of lessons: a lesson that keeps them, and what is said of one that breaks
them."""

import re

import pytest
from lesson_rules import problems

from mtmm_lib.lesson import book
from mtmm_lib.lesson.book import Objective
from tools.lesson import Source
from tools.notation import symbols

IDEA = """
## Idea number {n}

```{{exercise}} ★ Short · 2 minutes
:label: short-{n}
```

```{{code-cell}} ipython3
check("short-{n}", ...)
```

```{{code-cell}} ipython3
:tags: [hide-input]

# A guess
guess("a-guess-{n}", "Which?", {{}}, right="")
```

```{{code-cell}} ipython3
pairs = list(zip(first, second))
show({n})
```
"""
EXERCISE = """
```{{exercise}} ★★ Long · 10 minutes
:label: long-{n}
```

```{{code-cell}} ipython3
check("long-{n}", ...)
```
"""
LESSON = f"""\
# {{{{ title }}}}

*{{{{ minutes }}}}*

```{{code-cell}} ipython3
:tags: [hide-input]

# Setup: how to draw
start("a-lesson")
options = {{"a": 1}}


def show(n):
    figure(n, alt="")
```

A hook.

```{{code-cell}} ipython3
explore(draw, alt="")
```

{"word " * 1500}

$$\\hat y_t = \\Phi\\, x + \\text{{rest}}$$
{"".join(IDEA.format(n=n) for n in (1, 2, 3))}
```{{code-cell}} ipython3
measured(finding("More.", gain))
```

## Pitfalls

## Exercises
{"".join(EXERCISE.format(n=n) for n in (1, 2, 3, 4))}
"""
FACTS = book.Lesson(
    slug="a-lesson",
    part="",
    title="",
    card="",
    article=(),
    number="00",
    arrows=(),
    needs=(),
    objectives=tuple(
        Objective("do", f"Idea number {n}", f"long-{n}") for n in (1, 2, 3)
    ),
    symbols=((r"\Phi_k", "features"),),
)
QUIZ = [{"objective": n} for n in (1, 2, 3)] + [{}, {}]


def found(text=LESSON, quiz=QUIZ):
    return list(problems(FACTS, Source(text), quiz))


def test_a_lesson_that_keeps_the_rules():
    assert found() == []


CELL = "```{code-cell} ipython3\n"
BREACHES = {
    "[0-9]+ words of prose, not": ("word " * 100, ""),
    "10 displayed equations": ("A hook.", "A hook." + "\n\n$$x$$" * 9),
    "it says {{ minutes }}": ("{{ minutes }}", "45 minutes"),
    "18 visible lines, more than 15": ("show(1)", "show(1)\n" * 17),
    "15. visible lines of code before": ("show(1)", "show(1)\n" * 145),
    "77 columns": ("show(1)", "show(1)" + " " * 63 + "# 1 2 3"),
    "a walrus": ("show(1)", "show(n := 1)"),
    "a union of dictionaries: options": ("show(1)", "show(options | more)"),
    "a union of dictionaries: a": ("show(1)", "a |= {}"),
    "a comprehension in": ("show(1)", "[[a for a in b] for b in c]"),
    "a zip taken apart twice": ("show(1)", "for (a, b), c in zip(d, e):\n    pass"),
    "a zip that turns a table": ("show(1)", "show(zip(*table))"),
    "start.* is not folded": (":tags: [hide-input]\n\n# Setup", "# Setup"),
    "15. words before the first": ("A hook.", "A hook. " + "word " * 148),
    "13 visible lines .* first": ("A hook.", CELL + "n = 1\n" * 13 + "```"),
    "no picture in “Idea number 2”": ("show(2)", "2"),
    "guess.* in 2 sections": ('guess("a-guess-3"', 'ask("a-guess-3"'),
    "no explore": ("explore(", "figure("),
    "no measured": ("measured(", "boxed("),
    "that is not folded shows its answer": (
        ":tags: [hide-input]\n\n# A guess",
        "# A guess",
    ),
    "1 short checks before": ("## Idea number 2", "## Exercises\n\n## Idea number 2"),
    "3 exercises at the end, not 4": ("long-4", "long-3"),
    "long-1: its title": ("Long · 10 minutes", "Long"),
    "objective 2: no section": ("## Idea number 2", "## Idea two"),
    "objective 2: no exercise long-2": ("long-2", "long-5"),
    r"\$b\$ is explained neither": ("A hook.", r"A hook: $\hat{b}_m^2 + \log x$."),
    r"\$\\Phi\$ is among the lesson's symbols": (r"\Phi", r"\theta"),
}


@pytest.mark.parametrize("said", BREACHES)
def test_a_breach_is_named(said):
    old, new = BREACHES[said]
    assert old in LESSON
    named = found(LESSON.replace(old, new))
    assert [each for each in named if re.search(said, each)], named


def test_each_objective_needs_its_question_and_each_question_an_objective():
    (said,) = found(quiz=[{"objective": 1}, {"objective": 3}, {}])
    assert said == "objective 2: no question of the quiz tests it"
    (said,) = found(quiz=[*QUIZ, {"objective": 4}])
    assert said == "the quiz tests objective 4, which there is not"


def test_a_letter_of_the_whole_book_gets_no_other_meaning(monkeypatch):
    monkeypatch.setattr("lesson_rules.meanings", lambda: [("x", ""), ("y", "")])
    assert found() == []
    known = [(letter, "") for letter in ("x", "y", r"\Phi")]
    monkeypatch.setattr("lesson_rules.meanings", lambda: known)
    (said,) = found()
    assert said.startswith(r"$\Phi$ has a meaning of its own")


@pytest.mark.parametrize(
    ("formula", "letters"),
    [
        (r"\hat y_t = V_t h + c_t", ["y", "V", "h", "c"]),
        (r"\mathcal{L} = \sum_{t=1}^T w_t\,\ell_t", [r"\mathcal L", "T", "w", r"\ell"]),
        (r"\operatorname{softmax}(z)_\theta", ["z"]),
        (r"I_{\text{uni},m} \le \log_2 \frac{1}{\sigma_m^2}", ["I", r"\sigma"]),
        (r"x^{(i)} \in \mathbb R^D, \quad \mathbb 1[\cdot]", ["x", "D"]),
        (r"\begin{cases} \dfrac{w_t}{B} & \text{class} \end{cases}", ["w", "B"]),
        (r"(g_s^\top g_t)_{s,t}", ["g"]),
        (r"\underbrace{k}_{\text{own}} + a_{i_{j}} + v", ["k", "a", "v"]),
    ],
)
def test_the_letters_of_a_formula(formula, letters):
    assert symbols(formula) == letters
