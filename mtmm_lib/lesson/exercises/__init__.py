'''Exercises: `check(id, answer)` and the registry of what is checked.

How to add an exercise to chapter NN
1. In `chapters/src/NN-*.md`, three blocks in this order; the id is unique in the book:

       ```{exercise} ★★ Count what is shared
       :label: count-shared
       Write `shared(model)`, which returns …
       ```

       ```{code-cell} ipython3
       def shared(model):
           ...  # your code


       check("count-shared", shared)
       ```

       ````{solution} count-shared
       :class: dropdown

       ```python
       def shared(model):
           return …
       ```
       ````

   The cell holds a stub (it returns None or `...`, or raises NotImplementedError) and the call of `check`. Stub and
   solution may use the chapter's imports and the functions and classes that it defines above, nothing else: tests
   run them with these alone.
2. In `mtmm_lib/lesson/exercises/chNN.py`, the check: it tests the answer against the mathematics on random inputs
   and raises `Hint` with the sentence that helps the learner:

       @exercise("count-shared")
       def _(shared):
           for _ in range(5):
               model = …
               if shared(model) == sum(p.numel() for p in model.parameters()):
                   raise Hint("You counted the heads too: …")

   A check that returns has passed. It sees a new random state each time, which leaves the lesson's own alone.
3. In `tests/lesson/mistakes/chNN.py`, at least one typical mistake per exercise: its code, keyed by a part of the
   hint that it must get. Every mistake gets a hint of its own:

       MISTAKES = {
           "count-shared": {
               "counted the heads too": """
       def shared(model):
           return sum(p.numel() for p in model.parameters())
       """,
           },
       }

`tests/lesson/test_exercises.py` finds all this by itself and proves: the stub does not pass, the solution does, each
mistake gets its hint.
'''

from __future__ import annotations

import difflib
import functools
import importlib
import linecache
import pkgutil
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import torch

from mtmm_lib.lesson import page


class Hint(Exception):
    """What is wrong with an answer, said so that it helps."""


class NotYet(Exception):
    """The answer is still the stub."""


@dataclass(frozen=True)
class Feedback:
    """What `check` found: whether the answer passed, and if not, the hint."""

    passed: bool
    hint: str = ""

    def _ipython_display_(self) -> None:
        """Nothing more: `check` has shown it already, and a cell that ends with it must not show it twice."""


REGISTRY: dict[str, Callable[[Any], None]] = {}


def exercise(id: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register the decorated function as the check of the exercise `id`."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        if id in REGISTRY:
            raise ValueError(f"there are two checks for the exercise {id!r}")
        REGISTRY[id] = function
        return function

    return register


@functools.cache
def load() -> dict[str, Callable[[Any], None]]:
    """The checks of all chapters."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return REGISTRY


def check(id: str, answer: Any) -> Feedback:
    """Tell at once whether an answer is right, and if not, what to look at. Never raises.

    Args:
        id: the exercise.
        answer: what the exercise asks for: a function, a class, a module or a value.
    """
    feedback = judge(id, answer)
    tone, head = ("good", "✓ Correct") if feedback.passed else ("open", "Not yet")
    text = f"{head}: {feedback.hint}" if feedback.hint else head
    page.show(
        f'<div class="mtmm-box" style="--mtmm-tone:var(--mtmm-{tone})" role="status">'
        f'<p><span class="mtmm-head">{head}</span> {escape(feedback.hint)}</p></div>',
        text,
    )
    return feedback


def judge(id: str, answer: Any) -> Feedback:
    """`check` without showing anything."""
    if id not in load():
        near = difflib.get_close_matches(id, REGISTRY, 1)
        return Feedback(
            False, f"There is no exercise {id!r}." + (f" Did you mean {near[0]!r}?" if near else "")
        )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.seed()
            REGISTRY[id](_watched(answer))
    except NotYet:
        return Feedback(False, "Replace the stub by your own code, then run this cell again.")
    except Hint as hint:
        return Feedback(False, str(hint))
    except Exception as error:
        return Feedback(False, _explain(error, answer))
    return Feedback(True)


def _watched(answer: Any) -> Any:
    if answer is None or answer is Ellipsis:
        raise NotYet
    if not isinstance(answer, types.FunctionType):
        return answer

    @functools.wraps(answer)
    def call(*args, **kwargs):
        try:
            result = answer(*args, **kwargs)
        except NotImplementedError:
            raise NotYet from None
        if result is None or result is Ellipsis:
            raise NotYet
        return result

    return call


def _explain(error: Exception, answer: Any) -> str:
    name = f"{type(error).__name__}: {error}"
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == file:
            line = (frame.line or linecache.getline(file, frame.lineno)).strip()
            return f"Your code stopped at line {frame.lineno}, `{line}`, with {name}"
    return f"Your answer could not be checked: {name}. Is it of the kind that the exercise asks for?"
