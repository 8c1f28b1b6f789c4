"""The exercises of a chapter's source, and what is wrong with them.

The conventions stand in `mtmm_lib/lesson/exercises/__init__.py`.
"""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin

from mtmm_lib.lesson.exercises import judge


@dataclass
class Exercise:
    """One exercise: its stub and check (a code cell), its solution, and what the
    chapter defines above it."""

    id: str
    stubs: list[ast.Module] = field(default_factory=list)
    solutions: list[str] = field(default_factory=list)
    collapsed: bool = True
    above: list[ast.stmt] = field(default_factory=list)


def blocks(text: str) -> Iterator[tuple[str, str, dict[str, str], str]]:
    """Every directive of a MyST text: name, argument, options, body."""
    for token in MarkdownIt().use(colon_fence_plugin).parse(text):
        if match := re.match(r"\{([\w-]+)\}\s*(.*)", token.info or ""):
            lines = token.content.splitlines()
            options = {}
            if lines and lines[0].strip() == "---":
                end = lines.index("---", 1)
                lines = lines[end + 1 :]
            while lines and (option := re.match(r":([\w-]+):\s*(.*)", lines[0])):
                options[option[1]] = option[2].strip()
                lines.pop(0)
            yield match[1], match[2].strip(), options, "\n".join(lines)


def exercises(source: str) -> dict[str, Exercise]:
    """The exercises of a chapter by id; a piece without its exercise makes one too, so
    that it is seen."""
    found: dict[str, Exercise] = {}
    above: list[ast.stmt] = []
    for name, argument, options, body in blocks(source):
        if name == "exercise":
            id = options.get("label", f"without a label: {argument}")
            found.setdefault(id, Exercise(id))
        elif name == "code-cell":
            cell = ast.parse(TransformerManager().transform_cell(body))
            for id in {call.args[0].value for call in _calls(cell)}:
                exercise = found.setdefault(id, Exercise(id))
                exercise.stubs.append(cell)
                exercise.above = list(above)
            above += [
                s
                for s in cell.body
                if isinstance(
                    s, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
                )
            ]
        elif name == "solution":
            exercise = found.setdefault(argument, Exercise(argument))
            code = [
                t.content
                for t in MarkdownIt().parse(body)
                if t.type == "fence" and t.info == "python"
            ]
            exercise.solutions.append("\n".join(code))
            exercise.collapsed &= options.get("class") == "dropdown"
    return found


def problems(
    source: str,
    mistakes: Mapping[str, Mapping[str, str]],
    checks: Mapping[str, Callable[[Any], None]],
) -> Iterator[str]:
    """What is wrong with the exercises of one chapter, each problem in a sentence."""
    labels = [
        options.get("label")
        for name, _, options, _ in blocks(source)
        if name == "exercise"
    ]
    found = exercises(source)
    for id in set(mistakes) - set(found):
        yield f"{id}: mistakes are listed, but the chapter has no such exercise"
    for id, exercise in found.items():
        if labels.count(id) != 1:
            yield f"{id}: it needs one {{exercise}} with this label"
        elif len(exercise.stubs) != 1:
            yield f'{id}: it needs one code cell with check("{id}", …)'
        elif id not in checks:
            yield f"{id}: it has no check in mtmm_lib/lesson/exercises"
        elif len(exercise.solutions) != 1 or not exercise.solutions[0].strip():
            yield f"{id}: it needs one {{solution}} with a ```python block"
        elif not exercise.collapsed:
            yield f"{id}: the solution needs :class: dropdown"
        elif not mistakes.get(id):
            yield f"{id}: no typical mistakes are listed"
        else:
            yield from _judged(exercise, mistakes[id])


def _judged(exercise: Exercise, mistakes: Mapping[str, str]) -> Iterator[str]:
    id = exercise.id
    if feedback(exercise).passed:
        yield f"{id}: the stub passes"
    if not (solved := feedback(exercise, exercise.solutions[0])).passed:
        yield f"{id}: the solution does not pass: {solved.hint}"
    hints: dict[str, str] = {}
    for part, code in mistakes.items():
        made = feedback(exercise, code)
        if made.passed:
            yield f"{id}: the mistake {part!r} passes"
        elif part not in made.hint:
            yield f"{id}: the mistake {part!r} gets another hint: {made.hint}"
        elif made.hint in hints:
            yield (
                f"{id}: the mistakes {hints[made.hint]!r} and {part!r} get the "
                "same hint"
            )
        hints[made.hint] = part


def feedback(exercise: Exercise, answer: str = ""):
    """What `check` says when the learner replaces the stub by `answer`."""
    (cell,) = exercise.stubs
    (call,) = _calls(cell)
    names: dict[str, Any] = {"__name__": "__main__"}
    for statement in exercise.above:
        try:
            _run(ast.Module([statement], []), names)
        except NameError:
            pass  # needs what the chapter computes: not for an exercise
    _run(ast.Module([s for s in cell.body if not list(_calls(s))], []), names)
    if answer:
        file = f"<the answer to {exercise.id}>"
        linecache.cache[file] = (len(answer), None, answer.splitlines(True), file)
        tree = ast.parse(answer, file)
        tree.body = [s for s in tree.body if not list(_calls(s))]
        _run(tree, names, file)
    return judge(
        exercise.id,
        eval(compile(ast.Expression(call.args[1]), "<the check>", "eval"), names),
    )


def _run(tree: ast.Module, names: dict[str, Any], file: str = "<the chapter>") -> None:
    exec(compile(tree, file, "exec"), names)


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and "check"
            in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))
            and len(node.args) == 2
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[0].value, str)
        ):
            yield node
