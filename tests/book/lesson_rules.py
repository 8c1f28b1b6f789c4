"""What is wrong with a lesson, each problem in a sentence.

The rules are CONTRIBUTING's; `test_chapters.py` says which lessons they hold for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from mtmm_lib.lesson.book import Lesson
from tools.lesson import Source, calls, code_lines, is_folded, parsed, words
from tools.notation import meanings, symbols

PICTURES = ("figure", "explore", "diagram", "play")
AFTER_THE_IDEAS = ("Pitfalls", "Summary", "Exercises")
# a refresher; every other lesson has the general budget
WORDS = {"warm-up": range(1000, 2001)}


def problems(lesson: Lesson, text: Source, quiz: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with one lesson, its text and its quiz."""
    yield from amounts(lesson.slug, text)
    yield from visible_code(text)
    yield from the_way_in(text)
    yield from ideas(text)
    yield from exercises(text)
    yield from objectives(lesson, text, quiz)
    yield from notation(lesson, text)


def amounts(slug: str, text: Source) -> Iterator[str]:
    count, allowed = words(text.prose), WORDS.get(slug, range(1500, 3001))
    if count not in allowed:
        yield f"{count} words of prose, not {allowed[0]} to {allowed[-1]}"
    if len(text.equations) > 6:
        yield f"{len(text.equations)} displayed equations in sight, more than 6"
    lines = sum(len(code_lines(code)) for code in text.before_exercises.visible)
    if lines > 150:
        yield f"{lines} visible lines of code before the exercises, more than 150"
    if text.markdown.count("{{ minutes }}") != 1:
        yield "it says {{ minutes }} once"


def visible_code(text: Source) -> Iterator[str]:
    """Short, narrow, and not clever."""
    known = {
        target.id
        for code in text.code
        for node in ast.walk(parsed(code))
        if isinstance(node, ast.Assign) and _is_mapping(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for code in text.visible:
        lines = code_lines(code)
        where = f"the cell that begins with {lines[0]!r}"
        if len(lines) > 15:
            yield f"{where}: {len(lines)} visible lines, more than 15"
        for line in lines:
            if len(line) > 76:
                yield f"{where}: {len(line)} columns, more than 76: {line}"
        for clever in cleverness(parsed(code), known):
            yield f"{where}: {clever}"


def cleverness(tree: ast.AST, mappings: set[str]) -> Iterator[str]:
    """What a beginner has to puzzle over; `mappings` are names of dictionaries."""
    within = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    for node in ast.walk(tree):
        match node:
            case ast.NamedExpr():
                yield f"a walrus: {ast.unparse(node)}"
            case ast.BinOp(left, ast.BitOr(), right) | ast.AugAssign(
                left, ast.BitOr(), right
            ) if _is_mapping(left, mappings) or _is_mapping(right, mappings):
                yield f"a union of dictionaries: {ast.unparse(node)}"
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                inner = (part for part in ast.walk(node) if part is not node)
                if any(isinstance(part, within) for part in inner):
                    yield f"a comprehension in another: {ast.unparse(node)}"
            case ast.For(target, source) | ast.comprehension(target, source):
                nested = isinstance(target, ast.Tuple) and any(
                    isinstance(part, ast.Tuple) for part in target.elts
                )
                if nested and list(calls(source, "zip")):
                    yield f"a zip taken apart twice: {ast.unparse(target)}"
            case ast.Call(args=[*arguments]) if getattr(node.func, "id", "") == "zip":
                if any(isinstance(each, ast.Starred) for each in arguments):
                    yield f"a zip that turns a table: {ast.unparse(node)}"


def _is_mapping(node: ast.AST, names: set[str]) -> bool:
    match node:
        case ast.Dict() | ast.DictComp() | ast.Call(ast.Name("dict")):
            return True
        case ast.Name(name):
            return name in names
    return False


def the_way_in(text: Source) -> Iterator[str]:
    """The set-up is folded, and a picture comes soon."""
    drawing, before = _drawing(text), []
    for cell in text.cells:
        if cell.cell_type == "code":
            if list(calls(parsed(cell.source), "start")) and not is_folded(cell):
                yield "the cell with start(…) is not folded"
            if _shows(cell.source, drawing):
                break
        before.append(cell)
    above = Source.of(before)
    if (count := words(above.prose)) > 150:
        yield f"{count} words before the first picture, more than 150"
    if (count := sum(len(code_lines(code)) for code in above.visible)) > 12:
        yield f"{count} visible lines of code before the first picture, more than 12"


def ideas(text: Source) -> Iterator[str]:
    """Each section has a picture; some ask for a guess."""
    drawing, guessed = _drawing(text), 0
    for heading, section in text.sections.items():
        if heading in AFTER_THE_IDEAS:
            break
        guessed += bool(list(section.calls("guess")))
        if heading and not any(_shows(code, drawing) for code in section.code):
            yield f"no picture in “{heading}”"
    if guessed < 3:
        yield f"guess(…) in {guessed} sections, not in three"
    if not list(text.calls("explore")):
        yield "no explore(…)"
    if not list(text.calls("measured")):
        yield "no measured(…)"
    for code in text.visible:
        if list(calls(parsed(code), "guess")):
            yield f"a guess(…) that is not folded shows its answer: {code[:60]!r}"


def _drawing(text: Source) -> set[str]:
    """What shows a picture when it is called: the kit's, and the lesson's own functions
    that call them."""
    names = set(PICTURES)
    for code in text.code:
        for node in parsed(code).body:
            if isinstance(node, ast.FunctionDef) and list(calls(node, *names)):
                names.add(node.name)
    return names


def _shows(code: str, drawing: set[str]) -> bool:
    definitions = (ast.FunctionDef, ast.ClassDef)
    return any(
        not isinstance(node, definitions) and list(calls(node, *drawing))
        for node in parsed(code).body
    )


def exercises(text: Source) -> Iterator[str]:
    """Some within the sections, most at the end; each says how long it takes."""
    within = len(text.before_exercises.exercises)
    if within < 2:
        yield f"{within} short checks before the exercises, not two"
    if len(text.exercises) - within not in range(4, 7):
        yield f"{len(text.exercises) - within} exercises at the end, not 4 to 6"
    for exercise in text.exercises.values():
        if not exercise.minutes:
            yield f"{exercise.id}: its title does not end with “ · 5 minutes”"


def objectives(
    lesson: Lesson, text: Source, quiz: list[dict[str, Any]]
) -> Iterator[str]:
    """Each leads to a section, an exercise and a question."""
    asked = {question.get("objective") for question in quiz}
    for number, objective in enumerate(lesson.objectives, 1):
        if objective.section not in text.headings:
            yield f"objective {number}: no section “{objective.section}”"
        if objective.exercise not in text.exercises:
            yield f"objective {number}: no exercise {objective.exercise}"
        if number not in asked:
            yield f"objective {number}: no question of the quiz tests it"
    for number in asked - {None, *range(1, len(lesson.objectives) + 1)}:
        yield f"the quiz tests objective {number}, which there is not"


def notation(lesson: Lesson, text: Source) -> Iterator[str]:
    """Each letter has one meaning: the whole book's, or one of the lesson's own."""
    everywhere = {letter for letter, _ in meanings()}
    own = {symbols(formula)[0] for formula, _ in lesson.symbols}
    used = {letter for formula in text.formulas for letter in symbols(formula)}
    for letter in sorted(own & everywhere):
        yield f"${letter}$ has a meaning of its own, and one in pages/notation.md"
    for letter in sorted(used - own - everywhere):
        yield (
            f"${letter}$ is explained neither in pages/notation.md nor among the "
            "lesson's symbols"
        )
    for letter in sorted(own - used):
        yield f"${letter}$ is among the lesson's symbols and stands nowhere"
