"""The rules that every chapter keeps: objectives with exercises, budgets, text
alternatives, references."""

import ast
import re
from functools import cache

import jupytext
import pytest
import yaml

from mtmm_lib.lesson import book
from tools.project import FRONT, ROOT, lessons

CHAPTERS = [lesson.folder / "lesson.md" for lesson in lessons()]
TOURS = ("everything-is-a-mapping", "concepts-and-connections", "the-twelve-steps")
# a refresher of fifteen minutes; every other chapter has the general budget
WORDS = {"warm-up": (1200, 2000)}

every_chapter = pytest.mark.parametrize(
    "path", CHAPTERS, ids=lambda path: path.parent.name
)


@cache
def cells(path, kind):
    return [cell.source for cell in jupytext.read(path).cells if cell.cell_type == kind]


def markdown(path):
    return "\n\n".join(cells(path, "markdown"))


def prose(text: str) -> str:
    """The words that a reader reads: no code, mathematics, options or solutions."""
    text = re.sub(
        r"^````\{solution\}.*?^````$", "", text, flags=re.DOTALL | re.MULTILINE
    )
    text = re.sub(
        r"^```(\{math\}|python|text|bash).*?^```$",
        "",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    text = re.sub(
        r"\$\$.*?\$\$|\$[^$]+\$|`[^`\n]+`|^:\w+:.*$|^`{3,}.*$",
        " ",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    return re.sub(r"\]\([^)]*\)|\{\w+\}", "] ", text)


def exercises(text: str) -> list[str]:
    return re.findall(
        r"^`{3,}\{exercise\}[^\n]*\n:label: ([\w-]+)", text, flags=re.MULTILINE
    )


def objectives(text: str) -> list[str]:
    """The items of the list that follows the words *What you will learn*."""
    following = re.split(r"What you will learn", text, maxsplit=1)[1]
    listed = re.search(
        r"((?:^(?:\d+\.|[-*]) .*(?:\n(?!\n).*)*\n?\n?)+)", following, flags=re.MULTILINE
    )[1]
    return [
        item
        for item in re.split(r"^(?:\d+\.|[-*]) ", listed, flags=re.MULTILINE)
        if item.strip()
    ]


@every_chapter
def test_every_objective_has_an_exercise(path):
    items, known = objectives(markdown(path)), exercises(markdown(path))
    assert 3 <= len(items) <= 6
    for item in items:
        named = re.findall(r"\{ref\}`([\w-]+)`", item)
        assert named, (
            f"the objective {item.strip()!r} names no exercise: end it with "
            f"({{ref}}`its-label`)"
        )
        assert set(named) <= set(known), f"{named} is not among the exercises {known}"


@every_chapter
def test_every_exercise_has_a_solution_and_a_level(path):
    text = markdown(path)
    assert 4 <= len(exercises(text)) <= 6
    assert sorted(exercises(text)) == sorted(
        re.findall(r"^`{3,}\{solution\} ([\w-]+)", text, flags=re.MULTILINE)
    )
    titles = re.findall(r"^`{3,}\{exercise\} *(.*)$", text, flags=re.MULTILINE)
    assert all(re.match(r"★{1,3} \w", title) for title in titles), titles
    folded = re.findall(
        r"^`{3,}\{solution\} [\w-]+\n:class: dropdown$", text, flags=re.MULTILINE
    )
    assert len(folded) == len(titles)


def test_labels_are_unique_in_the_book():
    labels = [
        label
        for path in CHAPTERS
        for label in re.findall(r"^:label: (\S+)|^\((\S+)\)=", markdown(path), re.M)
    ]
    labels = [label for pair in labels for label in pair if label]
    assert len(labels) == len(set(labels))


@every_chapter
def test_words(path):
    count = len(re.findall(r"\b[^\W\d_][\w’'-]*", prose(markdown(path))))
    low, high = WORDS.get(path.parent.name, (2000, 3500))
    assert low <= count <= high, f"{count} words of prose"


@every_chapter
def test_cells(path):
    code = cells(path, "code")
    assert 15 <= len(code) <= 25, f"{len(code)} code cells"
    for source in code:
        lines = source.splitlines()
        assert len(lines) <= 25, (
            f"{len(lines)} lines in the cell that begins with {lines[0]!r}"
        )
        for line in lines:
            assert len(line) <= 88, f"{len(line)} characters: {line}"


@every_chapter
def test_parts_that_every_chapter_has(path):
    slug, code, text = path.parent.name, "\n".join(cells(path, "code")), markdown(path)
    assert text.startswith("# ")
    assert re.search(r"\d+ (minutes )?to read.*\d+ to do", text), (
        "minutes to read and to do"
    )
    assert f'start("{slug}")' in code and f'quiz("{slug}")' in code
    assert code.endswith("footer()")
    assert len(re.findall(r"\bclaim\(", code)) >= 1 and "explore(" in code
    assert re.search(r"^:label: eq-", text, flags=re.MULTILINE)
    if slug not in TOURS:
        assert "source(" in code, "the library's own code is shown beside the section's"
    summary = re.search(r"^## Summary\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    assert (
        summary
        and len(re.findall(r"^(?:\d+\.|[-*]) ", summary[1], flags=re.MULTILINE)) <= 7
    )


@every_chapter
def test_numbers_are_not_typed_into_claims(path):
    """What a claim measures is computed: its result is no literal, nor made of literals
    alone."""
    for source in cells(path, "code"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim":
                result = node.args[1] if len(node.args) > 1 else None
                assert result is not None and any(
                    isinstance(part, ast.Name) for part in measured(result)
                ), f"line {node.lineno} of the cell {source.splitlines()[0]!r}"


def measured(result: ast.expr) -> list[ast.AST]:
    """The parts of a claim's result, without the name of a function that is called."""
    calls = [node.func for node in ast.walk(result) if isinstance(node, ast.Call)]
    return [node for node in ast.walk(result) if node not in calls]


@every_chapter
def test_pictures_have_text_alternatives(path):
    assert not re.search(r"!\[\s*\]\(", markdown(path))
    for block in re.findall(
        r"^```\{(?:image|figure)\}.*?^```$",
        markdown(path),
        flags=re.MULTILINE | re.DOTALL,
    ):
        assert re.search(r"^:alt: \S", block, flags=re.MULTILINE), block
    for source in cells(path, "code"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "figure",
                "explore",
            ):
                assert "alt" in [keyword.arg for keyword in node.keywords], (
                    source.splitlines()[0]
                )
        assert "plt.show(" not in source, (
            "figure(fig, alt=…) shows a figure with its text alternative"
        )


def pages():
    return [FRONT, *CHAPTERS, *(ROOT / "pages").glob("*.md")]


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


def test_every_chapter_is_on_the_site_and_on_the_front_page():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    assert [name for name in listed if name.startswith("chapters/")] == [
        f"chapters/{lesson.slug}" for lesson in lessons()
    ]
    written = {path.parent.name for path in book.FOLDER.glob("*/lesson.md")}
    assert written == {lesson.slug for lesson in lessons()}
    front = FRONT.read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [lesson.name for lesson in lessons()]
    for name in names:
        assert (
            f":link: chapters/{name}\n" in front and f"chapters/{name}.ipynb" in readme
        )
    for name in re.findall(r":link: (chapters/\S+)", front) + re.findall(
        r"\((chapters/\S+)\.ipynb\)", readme
    ):
        assert name.split("/")[1] in names, f"{name} is linked, but not there"
