"""The rules that every chapter keeps: objectives with exercises, budgets, text
alternatives, references."""

import ast
import re

import pytest
import yaml
from lesson_rules import problems

from mtmm_lib.lesson import book, questions
from mtmm_lib.lesson.article import ARROWS
from tools.lesson import is_folded, source, words
from tools.notation import meanings
from tools.project import FRONT, ROOT, lessons, tracked

TOURS = (
    "everything-is-a-mapping",
    "concepts-and-connections",
    "a-fair-comparison",
    "the-twelve-steps",
)
# Not written anew yet: of these the rules ask less. A lesson that is leaves the set.
FIRST_EDITION = {
    "adding-up-losses",
    "when-gradients-disagree",
    "three-levels-of-fusion",
    "missing-weak-and-dominant-modalities",
    "attention-as-adaptive-weighting",
}
# a refresher of fifteen minutes; every other chapter has the general budget
WORDS = {"warm-up": (1200, 2000)}


def of_lessons(found):
    return pytest.mark.parametrize("lesson", found, ids=lambda lesson: lesson.slug)


every_chapter = of_lessons(lessons())
first_edition = of_lessons([x for x in lessons() if x.slug in FIRST_EDITION])
written_anew = of_lessons([x for x in lessons() if x.slug not in FIRST_EDITION])


@written_anew
def test_the_rules_of_lessons(lesson):
    assert list(problems(lesson, source(lesson), questions.load(lesson.slug))) == []


def test_a_letter_stands_once_in_the_table_of_notation():
    letters = [letter for letter, _ in meanings()]
    assert len(letters) > 20 and len(letters) == len(set(letters))


@every_chapter
def test_every_objective_has_a_section_and_an_exercise(lesson):
    text = source(lesson)
    assert 3 <= len(lesson.objectives) <= 6
    for objective in lesson.objectives:
        assert objective.section in text.headings, objective
        assert objective.exercise in text.exercises, objective
    assert text.markdown.count("{{ objectives }}") == 1


@every_chapter
def test_what_a_chapter_needs_comes_before_it(lesson):
    before = list(book.lessons())[: int(lesson.number)]
    assert set(lesson.needs) <= set(before)
    assert source(lesson).markdown.count("{{ needs }}") == bool(lesson.needs)
    assert set(lesson.arrows) <= set(ARROWS)


@every_chapter
def test_every_exercise_has_a_solution_and_a_level(lesson):
    exercises = source(lesson).exercises.values()
    for exercise in exercises:
        assert len(exercise.titles) == len(exercise.solutions) == 1, exercise.id
        assert re.match(r"★{1,3} \w", exercise.titles[0]), exercise.titles
        assert exercise.folded, exercise.id


def test_labels_are_unique_in_the_book_and_hold_no_numbers_of_chapters():
    labels = [label for lesson in lessons() for label in source(lesson).labels]
    assert len(labels) == len(set(labels))
    assert not [label for label in labels if re.search(r"\d\d", label)]


def test_no_number_of_a_chapter_is_written_by_hand():
    """It follows from the table of contents, by `{chapter}` or in what is derived."""
    number = r"\b[cC]hapters?[ \n]\d+\b|\b\d\d-[a-z]+(?:-[a-z]+)*\.ipynb"
    found = {}
    for path in tracked("*.md", "*.json", "*.yml", "mtmm_lib", "data/*.md", "Makefile"):
        examples = path in ("README.md", "CONTRIBUTING.md")
        if not examples and not path.endswith((".npz", ".sha256")):
            text = (ROOT / path).read_text(encoding="utf-8")
            if numbers := re.findall(number, text):
                found[path] = numbers
    assert found == {}


@first_edition
def test_words(lesson):
    count = words(source(lesson).prose)
    low, high = WORDS.get(lesson.slug, (2000, 3500))
    assert low <= count <= high, f"{count} words of prose"


@first_edition
def test_cells(lesson):
    text = source(lesson)
    assert 4 <= len(text.exercises) <= 6
    assert 15 <= len(text.code) <= 25, f"{len(text.code)} code cells"
    for code in text.visible:
        lines = code.splitlines()
        assert len(lines) <= 25, (
            f"{len(lines)} lines in the cell that begins with {lines[0]!r}"
        )


@every_chapter
def test_no_line_is_longer_than_those_of_the_library(lesson):
    for line in "\n".join(source(lesson).code).splitlines():
        assert len(line) <= 88, f"{len(line)} characters: {line}"


@every_chapter
def test_a_folded_cell_begins_with_what_is_in_it(lesson):
    """JupyterLab shows that line, and the site has it as the handle to unfold by."""
    for cell in source(lesson).cells:
        if is_folded(cell):
            first = cell.source.splitlines()[0]
            assert re.match(r"# [A-Z]\w+.{10,}", first) and len(first) <= 76, first


@every_chapter
def test_parts_that_every_chapter_has(lesson):
    slug, text = lesson.slug, source(lesson)
    code = "\n".join(text.code)
    assert text.markdown.startswith("# {{ title }}\n")
    said = r"\{\{ minutes \}\}|\d+ minutes to read, \d+ to do"
    assert re.search(said, text.markdown), "minutes to read and to do"
    assert f'start("{slug}")' in code and f'quiz("{slug}")' in code
    assert code.endswith("footer()")
    assert list(text.calls("claim", "finding")) and list(text.calls("explore"))
    assert any(label.startswith("eq-") for label in text.labels)
    if slug not in TOURS:
        assert list(text.calls("source")), (
            "the library's own code is shown beside the section's"
        )
    summary = re.search(
        r"^## Summary\n(.*?)^## ", text.markdown, flags=re.MULTILINE | re.DOTALL
    )
    assert (
        summary
        and len(re.findall(r"^(?:\d+\.|[-*]) ", summary[1], flags=re.MULTILINE)) <= 7
    )


@every_chapter
def test_numbers_are_not_typed_into_claims(lesson):
    """What a claim measures is computed: its result is no literal, nor made of literals
    alone."""
    for call in source(lesson).calls("claim", "finding"):
        result = call.args[1] if len(call.args) > 1 else None
        assert result is not None and any(
            isinstance(part, ast.Name) for part in measured(result)
        ), ast.unparse(call)


def measured(result: ast.expr) -> list[ast.AST]:
    """The parts of a claim's result, without the name of a function that is called."""
    calls = [node.func for node in ast.walk(result) if isinstance(node, ast.Call)]
    return [node for node in ast.walk(result) if node not in calls]


@every_chapter
def test_pictures_have_text_alternatives(lesson):
    text = source(lesson)
    assert not re.search(r"!\[\s*\]\(", text.markdown)
    for block in text.directives:
        assert block.name not in ("image", "figure") or block.options.get("alt"), block
    for call in text.calls("figure", "explore"):
        assert "alt" in [keyword.arg for keyword in call.keywords], ast.unparse(call)
    assert not [call for call in text.calls("show") if "plt" in ast.unparse(call)], (
        "figure(fig, alt=…) shows a figure with its text alternative"
    )


def pages():
    return [
        FRONT,
        *(lesson.folder / "lesson.md" for lesson in lessons()),
        *(ROOT / "pages").glob("*.md"),
    ]


def test_every_citation_has_an_entry_and_every_entry_is_cited():
    bib = (ROOT / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{([^,\s]+),", bib, flags=re.MULTILINE)
    assert entries == sorted(set(entries)), "entries stand in order, each once"
    cited = set()
    for path in pages():
        for keys in re.findall(
            r"\{cite(?::\w+)?\}`([^`]+)`", path.read_text(encoding="utf-8")
        ):
            cited |= {key.strip() for key in keys.split(",")}
    assert cited == set(entries)


def test_terms_are_in_the_glossary():
    glossary = (ROOT / "pages" / "glossary.md").read_text(encoding="utf-8")
    body = re.search(
        r"^```\{glossary\}\n(.*?)^```$", glossary, flags=re.MULTILINE | re.DOTALL
    )[1]
    entries = [
        entry.splitlines()
        for entry in body.split("\n\n")
        if entry.strip() and ":sorted:" not in entry
    ]
    for lines in entries:
        english, chinese, definition = lines[0], lines[1], lines[2:]
        assert re.fullmatch(r"[\w -]+", english, flags=re.ASCII), english
        assert re.search(r"[\u4e00-\u9fff]", chinese), f"{english} has no Chinese term"
        assert definition and all(line.startswith("  ") for line in definition), english
    assert [entry[0].lower() for entry in entries] == sorted(
        {entry[0].lower() for entry in entries}
    )
    for path in pages():
        for term in re.findall(
            r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`", path.read_text(encoding="utf-8")
        ):
            assert any(term in entry[:2] for entry in entries), (
                f"{path.name} uses {term!r}"
            )


def test_every_folder_of_a_lesson_is_in_the_table_of_contents():
    written = {path.parent.name for path in book.FOLDER.glob("*/lesson.md")}
    assert written == {lesson.slug for lesson in lessons()}


def test_the_site_gives_its_pages_the_numbers_that_lessons_have():
    """Jupyter Book counts what stands in its numbered parts; one lesson stands
    before."""
    parts = yaml.safe_load(book.TOC.read_text(encoding="utf-8"))["parts"]
    counted = [
        entry["file"].removeprefix("chapters/")
        for part in parts
        if part.get("numbered")
        for entry in part["chapters"]
    ]
    assert counted == [lesson.slug for lesson in lessons()][1:]
