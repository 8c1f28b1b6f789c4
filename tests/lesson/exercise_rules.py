"""What is wrong with the exercises of a lesson.

The conventions stand in `mtmm_lib/lesson/exercises.py`. Three proofs, each of which
finds everything by itself: `problems` (stub, solution, mistakes),
`arguments_that_do_not_matter` and `clothes_that_do_not_pass`.
"""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from mtmm_lib.lesson.checking import judge
from mtmm_lib.lesson.exercises import exercises as known
from tools.lesson import Exercise, Source, checks

CLOTHES: dict[str, Callable[[Tensor], Any]] = {
    "float32": lambda x: x.float() if x.is_floating_point() else x,
    "float64": lambda x: x.double() if x.is_floating_point() else x,
    "rounded as float32 may": lambda x: x * (1 + 2e-6) if x.is_floating_point() else x,
    "an array": lambda x: x.detach().numpy(),
    "lists and plain numbers": lambda x: x.tolist(),
    "lists and numpy's numbers": lambda x: (
        list(x.detach().numpy()) if x.dim() else x.detach().numpy()[()]
    ),
}


def problems(source: str) -> Iterator[str]:
    """What is wrong with the exercises of one lesson, each problem in a sentence."""
    for id, exercise in Source(source).exercises.items():
        if len(exercise.titles) != 1:
            yield f"{id}: it needs one {{exercise}} with this label"
        elif len(exercise.stubs) != 1:
            yield f'{id}: it needs one code cell with check("{id}", …)'
        elif id not in known():
            yield f"{id}: it is not in the lesson's exercises.py"
        elif len(exercise.solutions) != 1 or not exercise.solutions[0].strip():
            yield f"{id}: it needs one {{solution}} with a ```python block"
        elif not exercise.folded:
            yield f"{id}: the solution needs :class: dropdown"
        elif not known()[id].mistakes:
            yield f"{id}: no typical mistakes are listed"
        else:
            yield from _judged(exercise)


def _judged(exercise: Exercise) -> Iterator[str]:
    id, solution = exercise.id, exercise.solutions[0]
    if judge(id, answer(exercise)).passed:
        yield f"{id}: the stub passes"
    if not (solved := judge(id, answer(exercise, solution))).passed:
        yield f"{id}: the solution does not pass: {solved.hint}"
    for hint, mistaken in known()[id].mistakes.items():
        if not mistaken:
            yield f"{id}: nothing gets the hint {hint!r}"
        for made in (judge(id, each) for each in mistaken):
            if made.passed:
                yield f"{id}: the mistake {hint!r} passes"
            elif made.template != hint:
                yield f"{id}: the mistake {hint!r} gets another hint: {made.hint}"


def arguments_that_do_not_matter(source: str) -> Iterator[str]:
    """For every exercise that asks for a function or class: the arguments of which a
    right answer may use the first value that it saw, and passes."""
    for id, solution in _solutions(source):
        names = inspect.signature(solution).parameters if callable(solution) else ()
        for name in names:
            if judge(id, _used(solution, partial(_first, name, []))).passed:
                yield f"{id}: {name} does not matter"


def clothes_that_do_not_pass(source: str) -> Iterator[str]:
    """For every exercise that asks for a function or value: the forms of a right answer
    that the judge does not take."""
    for id, solution in _solutions(source):
        for name, put_on in CLOTHES.items():
            made = judge(id, _used(solution, dressed=partial(_dressed, put_on)))
            if not made.passed:
                yield f"{id}: {name} does not pass: {made.hint}"
        for kind in (torch.float32, torch.float64):
            made = judge(id, _used(solution, partial(_cast, kind)))
            if not made.passed:
                yield f"{id}: computed in {kind} does not pass: {made.hint}"
        made = judge(id, _used(solution, after=_meddle))
        if made.template != known()[id].unchanged:
            yield f"{id}: changing the arguments gets {made.hint or 'passed'!r}"


def _solutions(source: str) -> Iterator[tuple[str, Any]]:
    for id, exercise in Source(source).exercises.items():
        yield id, answer(exercise, exercise.solutions[0])


def _used(
    solution: Any,
    handed: Callable[[dict[str, Any]], None] = lambda arguments: None,
    dressed: Callable[[Any], Any] = lambda value: value,
    after: Callable[[dict[str, Any]], None] = lambda arguments: None,
) -> Any:
    """An answer that calls the solution with arguments that `handed` changes, dresses
    what it returns, and does something to its own arguments `after`. Of a class, what
    is called is its constructor; a value is dressed."""
    if not callable(solution):
        return dressed(solution)
    called = solution.__init__ if isinstance(solution, type) else solution

    @wraps(called)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(called).bind(*args, **kwargs)
        own = dict(bound.arguments)
        handed(bound.arguments)
        value = dressed(called(*bound.args, **bound.kwargs))
        if not getattr(value, "requires_grad", False):  # backward needs them
            after(own)
        return value

    if isinstance(solution, type):
        return type(solution.__name__, (solution,), {"__init__": call})
    return call


def _first(name: str, seen: list[Any], arguments: dict[str, Any]) -> None:
    if name in arguments:
        seen.append(deepcopy(arguments[name]))
        arguments[name] = deepcopy(seen[0])


def _cast(kind: torch.dtype, arguments: dict[str, Any]) -> None:
    """Not where functions are handed over: they expect what comes with them."""

    def cast(value: Any) -> Any:
        return value.to(kind) if value.is_floating_point() else value

    if not any(map(callable, arguments.values())):
        for name, value in arguments.items():
            arguments[name] = _dressed(cast, value, numbers=False)


def _meddle(arguments: dict[str, Any]) -> None:
    """Change every tensor and every list of numbers in place."""
    for value in arguments.values():
        if isinstance(value, dict):
            _meddle(value)
        elif isinstance(value, list):
            value[:] = [each + 1 for each in value if isinstance(each, (int, float))]
        elif isinstance(value, Tensor):
            value.data = torch.zeros_like(value) + (value == 0)


def _dressed(put_on: Callable[[Tensor], Any], value: Any, numbers: bool = True) -> Any:
    """The value with every tensor in it dressed; where numbers count, they are dressed
    as tensors, and tuples and lists are exchanged. What carries a gradient stays a
    tensor."""
    if isinstance(value, dict):
        return {key: _dressed(put_on, each, numbers) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        other = {tuple: list, list: tuple} if numbers else {}
        kind = other.get(type(value), type(value))
        return kind(_dressed(put_on, each, numbers) for each in value)
    if numbers and isinstance(value, (int, float)):
        value = torch.tensor(
            value, dtype=torch.float64 if type(value) is float else None
        )
    if not isinstance(value, Tensor):
        return value
    made = put_on(value)
    return made if isinstance(made, Tensor) or not value.requires_grad else value


def answer(exercise: Exercise, code: str = "") -> Any:
    """What a learner hands to `check` who replaces the stub by the code."""
    (cell,) = exercise.stubs
    (call,) = checks(cell)
    names: dict[str, Any] = {"__name__": "__main__"}
    for statement in exercise.above:
        try:
            _run(ast.Module([statement], []), names)
        except NameError:
            pass  # needs what the chapter computes: not for an exercise
    _run(ast.Module([s for s in cell.body if not list(checks(s))], []), names)
    if code:
        file = f"<the answer to {exercise.id}>"
        linecache.cache[file] = (len(code), None, code.splitlines(True), file)
        tree = ast.parse(code, file)
        tree.body = [s for s in tree.body if not list(checks(s))]
        _run(tree, names, file)
    return eval(compile(ast.Expression(call.args[1]), "<the check>", "eval"), names)


def _run(tree: ast.Module, names: dict[str, Any], file: str = "<the chapter>") -> None:
    exec(compile(tree, file, "exec"), names)
