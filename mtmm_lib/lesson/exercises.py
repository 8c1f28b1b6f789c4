"""Exercises as data: what a lesson's `exercises.py` is made of.

To add an exercise to a lesson:

1. In `lesson.md` these three blocks, in this order, in any section. The id is unique
   in the book, and the title says how long the exercise takes.

       ```{exercise} ★★ What sharing saves · 10 minutes
       :label: count-saving

       Write `saving(body, heads)`: by which factor …
       ```

       ```{code-cell} ipython3
       def saving(body, heads):
           ...  # your code


       check("count-saving", saving)
       ```

       ````{solution} count-saving
       :class: dropdown

       ```python
       def saving(body, heads):
           return (len(heads) * body + sum(heads)) / (body + sum(heads))
       ```

       Words that explain it, and further code blocks, as you like; tests run the code
       blocks in order.
       ````

   The stub returns None or `...`, or raises NotImplementedError (in a class, always the
   latter). Stub and solution see the lesson's imports and the functions and classes
   that it defines above, nothing else, so that tests run them in no time.

2. In `exercises.py` one of three kinds.

   **A function** (or a class): inputs, the reference, and what readers get wrong, as
   functions, by the hint that each of them gets. The reference is the decorated
   function; its arguments have the names that the exercise gives them.

       @function(
           "count-saving",
           inputs=lambda: [
               (whole(1_000, 50_000), [whole(50, 2_000) for _ in range(tasks)])
               for tasks in (2, 5, 9)
           ],  # drawn anew in every check
           mistakes={
               "That is the ratio upside down: put the separate models above.":
                   lambda body, heads: 1 / saving(body, heads),
               "T would be right if heads cost nothing.":
                   lambda body, heads: len(heads),
           },
       )
       def saving(body: int, heads: list[int]) -> float:
           return (len(heads) * body + sum(heads)) / (body + sum(heads))

   The judge calls the answer with copies of each input and compares what it returns
   (`difference`). An answer that does on most inputs what a mistake does, where one of
   them is wrong, gets its hint. So no hint has to find out what is wrong, and nothing
   is written twice. Several mistakes that deserve the same hint stand in a tuple. Any
   other wrong answer hears what differs, or, where the expected value would give the
   solution away, the exercise's own words:

           differs="Not the mean over the present modalities yet. Try one sample.",

   Inputs: draw them with torch (`torch.randn`, `whole`, `real`), as plain float32
   unless the exercise needs more, in different sizes, and vary *every* argument. Add
   the edges: one sample, a missing label, a zero. Where something has to be ignored,
   fill its place with finite junk in one input and NaN in another.

   `unchanged="The step is only a trial: …"` is for an exercise that asks to leave the
   arguments alone. Elsewhere an answer may change them.

   `call` says how an answer is put to use, if it is not just called:
   `call=with_gradient(of=0)` also compares the gradient for an argument, so that one
   mistake can be to lose it (`lambda …: reference(…).detach()`); a class is built and
   run, a training function is given a model whose weights are returned as well:

       def _used(Deep, widths, x):
           model = Deep(list(widths))
           … set its parameters …
           return count, model(x)

       @function("deep-net", inputs=…, call=_used, mistakes={"No ReLU …": …})
       class Deep(nn.Module): …

   A value that the reader is to find is a function without inputs:

       @function("which-rate", mistakes={"That is κ/2.": lambda: 3.0})
       def _() -> float:
           return 2 / 6

   **Lines** to be completed by words (or by other values): the right ones, and when a
   wrong one gets which hint. The first hint that fits the first wrong line is given;
   without one that fits, the reader hears how many lines are wrong.

       lines(
           "which-part",
           {"the epoch at which to stop": "valid", …},
           words=("train", "valid", "test"),
           mistakes={
               "“{line}”: what the test part helped to decide, it cannot judge.":
                   lambda line, given, right: given == "test",
               "Look again at “{line}”. …": confused("train", "valid"),
           },
       )

   **Code**, where data will not do (the answer has properties but no single value, or
   draws random numbers): a function that takes the answer and raises `Hint`. It too has
   its mistakes as functions.

       @exercise("split-by-group", mistakes={"Every seed gives the same …": lambda …})
       def _(split):
           if …:
               raise Hint("Group {group} is on both sides.", group=group)

   What the answer raises, and a result of None, becomes feedback by itself.

   Every text is one literal with named fields: no f-strings, no pieces put together,
   so that it can be translated. A hint of a `function` may name its arguments, all of
   them (`{arguments}`), what came (`{yours}`), what should have come (`{expected}`) and
   where in the result (`{place}`), each of the first input that was wrong; a hint of
   `lines` the `{line}`, what was `{given}`, and how many of the `{lines}` are
   `{wrong}`. Double other braces.

3. Nothing else. `tests/lesson/test_exercises.py` finds the exercise by itself and
   proves that the stub does not pass; that the solution does, in float32, float64,
   numpy, lists and plain numbers, and when it changes its arguments; that every
   argument matters: an answer that uses the first value it saw of any argument must
   fail; that each mistake gets its own hint and no other.

Pitfalls: a mistake that is right on all inputs (draw an input where it is not); two
mistakes that agree on all inputs; an argument of which the answer does not depend on
these inputs; expected values next to zero by cancellation, where float32 is off
(`tolerance`); sums of integers, which are compared exactly.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from mtmm_lib.lesson import book
from mtmm_lib.lesson.compare import ENTRY, VALUE, Difference, Raised, difference
from mtmm_lib.lesson.text import fill, show, show_apart

F = TypeVar("F", bound=Callable[..., Any])
Mistakes = Mapping[str, Callable[..., Any] | Sequence[Callable[..., Any]]]

NO_FUNCTION = (
    "Hand over what you defined itself, check({id!r}, {name}), without brackets behind "
    "its name."
)
NOT_YET = "It is not {yours}."
FORGOTTEN = (
    "With {arguments} your function returns nothing (None). Does every branch of it "
    "reach a return?"
)
FORGOTTEN_SOMEWHERE = (
    "For some inputs your function returns nothing (None). Does every branch of it "
    "reach a return?"
)
OTHER_LINES = "Keep the {lines} lines as they stand and give each one an answer."
NO_WORD = "“{line}”: {given!r} is not one of the answers, which are {words}."
WRONG_LINES = "{wrong} of {lines} are not right yet; begin with “{line}”."


class Hint(Exception):
    """What is wrong with an answer, in words that help: a template and its fields.
    Without fields the template stands as it is."""

    def __init__(self, template: str, /, **fields: Any):
        super().__init__(template)
        self.template, self.fields = template, fields

    def __str__(self) -> str:
        return fill(self.template, self.fields)


class NotYet(Exception):
    """The answer, a part of it, or what it returns is still the stub."""


def is_stub(error: BaseException) -> bool:
    """Whether an answer is still the stub that raised this. (PyTorch raises
    NotImplementedError with words.)"""
    return isinstance(error, NotYet) or (
        isinstance(error, NotImplementedError) and not error.args
    )


@dataclass(frozen=True)
class Exercise:
    """What the judge and the tests know of an exercise.

    Attributes:
        check: takes the answer; raises `Hint` for a wrong one.
        mistakes: wrong answers by the hint (its template) that each of them gets.
        unchanged: the hint for an answer that changes its arguments, if it may not.
    """

    check: Callable[[Any], None]
    mistakes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    unchanged: str = ""


_EXERCISES: dict[str, Exercise] = {}


def _register(id: str, made: Exercise) -> None:
    if id in _EXERCISES:
        raise ValueError(f"the exercise {id!r} has two checks")
    _EXERCISES[id] = made


@functools.cache
def by_lesson() -> dict[str, list[str]]:
    """The slug of each lesson → its exercises, both in order."""
    found = {}
    for slug, lesson in book.lessons().items():
        before = len(_EXERCISES)
        _load(lesson)
        found[slug] = list(_EXERCISES)[before:]
    return found


def exercises() -> dict[str, Exercise]:
    """The exercises of all lessons by their id."""
    by_lesson()
    return _EXERCISES


def _load(lesson: book.Lesson) -> None:
    """Run `exercises.py` of a lesson, as a module with the lesson's slug for its
    name."""
    name = f"{__name__}.{lesson.slug}"
    spec = importlib.util.spec_from_file_location(name, lesson.folder / "exercises.py")
    assert spec is not None and spec.loader is not None  # the file is there
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _listed(
    mistakes: Mistakes,
) -> dict[str, Sequence[Any]]:
    return {hint: [x] if callable(x) else x for hint, x in mistakes.items()}


def _called(answer: Callable[..., Any], *arguments: Any) -> Any:
    return answer(*arguments)


def with_gradient(of: int) -> Callable[..., Any]:
    """For `function(call=…)`: the answer's value and the gradient of its sum for the
    argument number `of`. A value without one has a gradient of zero."""

    def call(answer: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        x = arguments[of].requires_grad_()
        value, zero = answer(*arguments), torch.zeros_like(x)
        if not isinstance(value, Tensor) or not value.requires_grad:
            return {"value": value, "gradient": zero}
        (slope,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
        return {"value": value, "gradient": zero if slope is None else slope}

    return call


@dataclass(frozen=True)
class function:
    """A decorator: makes a function (or class) the reference of an exercise that asks
    for one.

    Args:
        id: the exercise.
        mistakes: what readers get wrong, as a function (or several), by the hint that
            each gets.
        inputs: returns the inputs, each a tuple of arguments. Without any the exercise
            asks for a value, what the reference returns.
        call: how an answer is put to use, `call(answer, *arguments)`; what that returns
            is compared. By default the answer is called with the arguments.
        differs: the hint where a value differs and no mistake is recognised; by default
            it names arguments, value and expected value.
        unchanged: the hint for an answer that changes its arguments; without one it
            may.
        tolerance: as `difference` has it.

    Raises:
        ValueError: when the exercise has a check already.
    """

    id: str
    mistakes: Mistakes
    inputs: Callable[[], Iterable[tuple[Any, ...]]] = lambda: [()]
    call: Callable[..., Any] = _called
    differs: str = ""
    unchanged: str = ""
    tolerance: float = 1e-4

    def __call__(self, reference: F) -> F:
        check = functools.partial(self._check, reference)
        _register(self.id, Exercise(check, _listed(self.mistakes), self.unchanged))
        return reference

    def _check(self, reference: Callable[..., Any], answer: Any) -> None:
        cases = list(self.inputs())
        asks_for_value = not any(cases)
        if not (callable(answer) or asks_for_value):
            raise Hint(NO_FUNCTION, id=self.id, name=reference.__name__)
        if not callable(answer):
            value, answer = answer, lambda: value
        yours = self._outcomes(answer, cases)
        expected = self._outcomes(reference, cases)
        off = self._differences(yours, expected)
        first, found = next(
            ((i, each) for i, each in enumerate(off) if each), (0, None)
        )
        if found is None:
            return
        fields = self._fields(reference, cases[first], found)
        if hint := self._recognised(cases, yours, expected):
            raise Hint(hint, **fields)
        if isinstance(yours[first], Raised):
            raise yours[first].error
        if yours[first] is None:
            raise Hint(FORGOTTEN, **fields)
        if found.template in (VALUE, ENTRY):
            usual = NOT_YET if asks_for_value else found.template
            raise Hint(self.differs or usual, **fields)
        raise Hint(found.template, **fields)

    def _outcomes(self, answer: Any, cases: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What comes of an answer for each input: a value, None, or what it raised."""
        found: list[Any] = []
        for case in cases:
            given = copy.deepcopy(case)
            torch.manual_seed(0)
            try:
                found.append(self.call(_watched(answer), *given))
            except NotYet:
                found.append(None)
            except Hint:
                raise
            except Exception as error:
                found.append(Raised(error))
            if self.unchanged and any(map(_changed, given, case)):
                raise Hint(self.unchanged)
        if all(
            each is None or isinstance(each, Raised) and is_stub(each.error)
            for each in found
        ):
            raise NotYet
        return found

    def _differences(
        self, yours: list[Any], expected: list[Any]
    ) -> list[Difference | None]:
        return [
            difference(a, b, self.tolerance)
            for a, b in zip(yours, expected, strict=True)
        ]

    def _recognised(
        self, cases: list[Any], yours: list[Any], expected: list[Any]
    ) -> str:
        """The hint of the mistake that does what the answer does on most of the inputs
        on which either of the two is wrong; empty without one."""
        off = self._differences(yours, expected)
        best, most = "", 0.5
        tried = [(hint, x) for hint, xs in _listed(self.mistakes).items() for x in xs]
        for hint, mistake in tried:
            made = self._outcomes(mistake, cases)
            wrong = self._differences(made, expected)
            alike = [
                not found
                for i, found in enumerate(self._differences(yours, made))
                if off[i] or wrong[i]
            ]
            if sum(alike) / len(alike) > most:
                best, most = hint, sum(alike) / len(alike)
        return best

    def _fields(
        self, reference: Callable[..., Any], case: tuple[Any, ...], found: Difference
    ) -> dict[str, Any]:
        named = list(inspect.signature(self.call).parameters.values())[1:]
        if any(each.kind is each.VAR_POSITIONAL for each in named):
            named = list(inspect.signature(reference).parameters.values())
        arguments = {each.name: x for each, x in zip(named, case, strict=False)}
        yours, expected = show_apart(found.yours, found.expected)
        return arguments | {
            "arguments": ", ".join(f"{k} = {show(x)}" for k, x in arguments.items()),
            "yours": yours,
            "expected": expected,
            "place": show(list(found.place)),
        }


def _changed(given: Any, kept: Any) -> bool:
    data = isinstance(kept, (Tensor, list, dict))
    return data and difference(given, kept) is not None


def _watched(answer: Any) -> Any:
    """The answer; as a function, one that raises `NotYet` where it returns None. (A
    class, whose methods may return nothing, raises NotImplementedError itself.)"""
    if not isinstance(answer, (types.FunctionType, functools.partial)):
        return answer
    returned = False

    @functools.wraps(answer)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal returned
        result = answer(*args, **kwargs)
        if result is None or result is Ellipsis:
            raise Hint(FORGOTTEN_SOMEWHERE) if returned else NotYet
        returned = True
        return result

    return call


def exercise(
    id: str,
    mistakes: Mistakes | None = None,
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Make the decorated function the check of an exercise that needs code.

    Args:
        id: the exercise.
        mistakes: wrong answers by the hint that each of them gets.

    Raises:
        ValueError: when the exercise has a check already.
    """

    def register(check: Callable[[Any], None]) -> Callable[[Any], None]:
        _register(
            id,
            Exercise(lambda answer: check(_watched(answer)), _listed(mistakes or {})),
        )
        return check

    return register


def lines(
    id: str,
    right: Mapping[str, Any],
    mistakes: Mapping[str, Callable[[str, Any, Any], bool]],
    *,
    words: Sequence[Any] = (),
    others: Sequence[Any] = (),
) -> None:
    """An exercise with lines to be completed, `answer = {"line": …}`.

    Args:
        id: the exercise.
        right: each line with its right answer.
        mistakes: by hint, whether it fits a line, what was given and what is right.
        words: what to choose from.
        others: without words, wrong answers that tests try.

    Raises:
        ValueError: when the exercise has a check already.
    """

    def hint(line: str, given: Any) -> str:
        fits = (h for h, fit in mistakes.items() if fit(line, given, right[line]))
        return next(fits, WRONG_LINES)

    def check(answer: Any) -> None:
        if not isinstance(answer, Mapping) or set(answer) != set(right):
            raise Hint(OTHER_LINES, lines=len(right))
        wrong = [line for line in right if difference(answer[line], right[line])]
        for line in wrong:
            if words and answer[line] not in words:
                names = ", ".join(map(str, words))
                raise Hint(NO_WORD, line=line, given=answer[line], words=names)
        if wrong:
            line, count = wrong[0], {"wrong": len(wrong), "lines": len(right)}
            given = answer[line]
            raise Hint(hint(line, given), line=line, given=given, **count)

    wrong: dict[str, list[Any]] = {text: [] for text in mistakes}
    for line in right:
        for given in words or others:
            if difference(given, right[line]):
                answer = {**right, line: given}
                wrong.setdefault(hint(line, given), []).append(answer)
    _register(id, Exercise(check, wrong))


def confused(one: Any, other: Any) -> Callable[[str, Any, Any], bool]:
    """For `lines`: one of two was given where the other is right."""
    return lambda line, given, right: sorted((given, right)) == sorted((one, other))


def whole(low: int, high: int) -> int:
    """A random whole number between two, both included."""
    return int(torch.randint(low, high + 1, ()))


def real(low: float, high: float) -> float:
    """A random number between two, rounded so that a hint can show all of it."""
    return round(low + (high - low) * float(torch.rand(())), 3)
