'''Exercises: `check(id, answer)` and the checks of every chapter.

To add an exercise to a lesson:

1. In `lesson.md`, these three blocks, in this order. The id is unique in the
book.

       ```{exercise} ★★ What is shared
       :label: count-shared

       Write `shared(model)`, which returns …
       ```

       ```{code-cell} ipython3
       def shared(model):
           ...  # your code here


       check("count-shared", shared)
       ```

       ````{solution} count-shared
       :class: dropdown

       ```python
       def shared(model):
           return …
       ```

       Words that explain it, and further code blocks, as you like; tests run the code
       blocks in order.
       ````

   The stub returns None or `...`, or raises NotImplementedError (in a class, always the
   latter). Every exercise has a check: a recall question asks for a value, as in
   `check("which-arrow", answer)` under `answer = ...`; an open one asks for the number
   or the function that the reader found. Stub and solution see the chapter's imports
   and the functions and classes that it defines above, nothing else, so that tests run
   them in no time.

2. In `exercises.py` beside it, the check. It tests the answer against the
mathematics on random
   inputs (the seed is set, the lesson's own random state left alone), and raises
   `Hint`:

       @exercise("count-shared")
       def _(shared):
           for width in (3, 7):
               model = …
               if shared(model) == sum(p.numel() for p in model.parameters()):
                   raise Hint("You counted the heads too: each of them belongs to one
                   task.")
               …

   Where lines are to be completed with words, `wrong_lines` compares them. A check that
   returns has passed. A function given as the answer needs no care: what it raises, and
   a result of None, becomes feedback. So does an answer, or a part of one, that is
   still `...`.

3. In `tests/lesson/mistakes/<slug>.py` (with `_` for `-`), at least one typical mistake
per exercise: a part
   of the hint that it must get, and its code. No two mistakes of an exercise get the
   same hint.

       MISTAKES = {
           "count-shared": {
               "counted the heads too": """
       def shared(model):
           return sum(p.numel() for p in model.parameters())
       """,
           },
       }

`tests/lesson/test_exercises.py` finds all of this by itself. It proves that the stub
does not pass, that the solution does, and that each mistake gets its hint; it fails
when a piece is missing.
'''

from __future__ import annotations

import difflib
import functools
import importlib.util
import sys
import sysconfig
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch

from mtmm_lib.lesson import book, page
from mtmm_lib.lesson.progress import note

_LIBRARIES = tuple(
    [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    + [str(Path(__file__).parents[2])]
)


class Hint(Exception):
    """What is wrong with an answer, in words that help."""


class NotYet(Exception):
    """The answer, a part of it, or what it returns is still the stub. `check` notices;
    no check need."""


@dataclass(frozen=True)
class Feedback:
    """What `check` found: whether the answer passed; if not, the hint. A stub is no
    attempt."""

    passed: bool
    hint: str = ""
    attempt: bool = True

    def _ipython_display_(self) -> None:
        """Nothing: `check` has shown it, and as the last line of a cell it would appear
        twice."""


_CHECKS: dict[str, Callable[[Any], None]] = {}


def exercise(id: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Make the decorated function the check of the exercise `id`.

    Raises:
        ValueError: when the exercise has a check already.
    """

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        if id in _CHECKS:
            raise ValueError(f"the exercise {id!r} has two checks")
        _CHECKS[id] = function
        return function

    return register


def keeps_lines(answer: dict[str, Any], right: dict[str, Any]) -> None:
    """For a question with several lines to complete: a hint where lines were lost,
    added or reworded."""
    if set(answer) != set(right):
        raise Hint(
            f"Keep the {len(right)} lines as they stand and give each one an answer."
        )


def wrong_lines(
    answer: dict[str, str], right: dict[str, str], words: Sequence[str]
) -> list[str]:
    """The lines that are not answered by the right one of some words; a hint where it
    is none of them."""
    keeps_lines(answer, right)
    unknown = sorted({str(value) for value in answer.values()} - set(words))
    if unknown:
        raise Hint(
            f"{unknown[0]!r} is not one of the answers, which are {', '.join(words)}."
        )
    return [line for line, word in right.items() if answer[line] != word]


@functools.cache
def checks() -> dict[str, Callable[[Any], None]]:
    """The checks of all chapters by the exercise's id."""
    for lesson in book.lessons().values():
        _load(lesson)
    return _CHECKS


def _load(lesson: book.Lesson) -> None:
    """Run `exercises.py` of a lesson, as a module with the lesson's slug for its
    name."""
    name = f"{__name__}.{lesson.slug}"
    spec = importlib.util.spec_from_file_location(name, lesson.folder / "exercises.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def by_chapter() -> dict[str, list[str]]:
    """Chapter → its exercises, both in order."""
    found: dict[str, list[str]] = {}
    for id, function in checks().items():
        found.setdefault(function.__module__.removeprefix(f"{__name__}."), []).append(
            id
        )
    return found


def check(id: str, answer: Any) -> Feedback:
    """Say at once whether an answer is right, and if not, what to look at. Raises
    nothing.

    A reader's attempts are noted on the reader's machine; `progress` shows them.

    Args:
        id: the exercise.
        answer: what the exercise asks for: a function, a class, a module or a value.
    """
    feedback = judge(id, answer)
    head = "✓ Correct." if feedback.passed else "Not yet."
    noted = note(id, feedback.passed) if feedback.attempt else ""
    page.box(
        f'<p><span class="mtmm-head">{head}</span> {escape(feedback.hint)}</p>'
        + (f'<p class="mtmm-soft">{escape(noted)}</p>' if noted else ""),
        " ".join(filter(None, [head, feedback.hint, noted])),
        "good" if feedback.passed else "open",
        role="status",
    )
    return feedback


def judge(id: str, answer: Any) -> Feedback:
    """What `check` shows."""
    if id not in checks():
        near = difflib.get_close_matches(id, _CHECKS, 1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        return Feedback(False, f"There is no exercise {id!r}.{meant}", attempt=False)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _CHECKS[id](_watched(answer))
    except (NotYet, NotImplementedError):
        hint = "Put your own answer in the place of the stub, then run this cell again."
        return Feedback(False, hint, attempt=False)
    except Hint as hint:
        return Feedback(False, str(hint))
    except Exception as error:
        return Feedback(False, _explain(error))
    return Feedback(True)


def _watched(answer: Any) -> Any:
    """The answer; as a function, one that notices when it is still the stub."""
    parts = (
        answer.values()
        if isinstance(answer, dict)
        else answer
        if isinstance(answer, (tuple, list))
        else [answer]
    )
    if any(part is None or part is Ellipsis for part in parts):
        raise NotYet
    if not isinstance(answer, types.FunctionType):
        return answer

    @functools.wraps(answer)
    def call(*args, **kwargs):
        result = answer(*args, **kwargs)
        if result is None or result is Ellipsis:
            raise NotYet
        return result

    return call


def _explain(error: Exception) -> str:
    name = traceback.format_exception_only(error)[0].strip().split("\n")[0][:300]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.line and not frame.filename.startswith(_LIBRARIES):
            return (
                f"Your code stopped at line {frame.lineno}, `{frame.line}`, with {name}"
            )
    return (
        f"Your answer could not be checked ({name}). Is it what the exercise asks for?"
    )
