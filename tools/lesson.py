"""The one reader of lessons: a source, and everything that it says.

A source is MyST Markdown, with a few things that only this book knows. Wherever a
lesson is shown, `filled` has put what they stand for in their place:

    {{ title }}, {{ needs }}, {{ objectives }}     what the front matter says
    {{ minutes }}                                  to read and to do, as they add up
    {chapter}`adding-up-losses`                    chapter 07, as a link
    {Chapter}`warm-up,the-twelve-steps`            Chapters 00 and 03, as links

Notebooks, pages of the site and tests are all made of what this module returns.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import takewhile
from math import floor

import jupytext
from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt
from mdit_py_plugins.colon_fence import colon_fence_plugin
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from mtmm_lib.lesson import book, questions
from mtmm_lib.lesson.book import Lesson

WORDS, LINES = 180, 12  # that are read in a minute
EQUATION = 2  # minutes for one that stands by itself
CHAPTER = re.compile(r"\{(?P<c>[cC])hapter\}`(?P<slugs>[^`]+)`")


@dataclass(frozen=True)
class Directive:
    """A block of MyST: ```` ```{name} argument ````, its options and its content."""

    name: str
    argument: str
    options: dict[str, str]
    body: str
    lines: slice  # where it stands in the text

    @property
    def folded(self) -> bool:
        """Whether a reader has to unfold it."""
        classes = self.options.get("class", "").split()
        return self.name in ("solution", "dropdown") or "dropdown" in classes


@dataclass(frozen=True)
class Minutes:
    """How long a lesson takes, to the nearest five minutes."""

    read: int
    do: int

    def __str__(self) -> str:
        return f"{self.read} minutes to read, {self.do} to do."


@dataclass
class Exercise:
    """One exercise: its title, its stub and check (a code cell), its solution, and what
    the lesson defines above it."""

    id: str
    titles: list[str] = field(default_factory=list)
    stubs: list[ast.Module] = field(default_factory=list)
    solutions: list[str] = field(default_factory=list)
    folded: bool = True  # whether a reader has to unfold the solution
    above: list[ast.stmt] = field(default_factory=list)

    @property
    def minutes(self) -> int:
        """What its title says; zero where that says nothing."""
        said = re.search(r" · (\d+) minutes$", "".join(self.titles))
        return int(said[1]) if said else 0


class Source:
    """The text of a lesson, read; or a part of it."""

    def __init__(self, text: str) -> None:
        self.cells: list[NotebookNode] = jupytext.reads(text, "md:myst").cells

    @classmethod
    def of(cls, cells: list[NotebookNode]) -> Source:
        """A part of a lesson."""
        part = cls("")
        part.cells = cells
        return part

    def of_kind(self, kind: str) -> list[str]:
        """The sources of the cells that are "markdown" or "code"."""
        return [cell.source for cell in self.cells if cell.cell_type == kind]

    @cached_property
    def code(self) -> list[str]:
        """The code cells."""
        return self.of_kind("code")

    @cached_property
    def visible(self) -> list[str]:
        """The code cells that are not folded."""
        cells = (cell for cell in self.cells if not is_folded(cell))
        return [cell.source for cell in cells if cell.cell_type == "code"]

    @cached_property
    def markdown(self) -> str:
        """The text between the code cells."""
        return "\n\n".join(self.of_kind("markdown"))

    @cached_property
    def in_sight(self) -> str:
        """The text without what a reader has to unfold."""
        lines = self.markdown.split("\n")
        for block in reversed(self.directives):
            if block.folded:
                del lines[block.lines]
        return "\n".join(lines)

    @cached_property
    def prose(self) -> str:
        """The words in sight: no code, mathematics, options."""
        many = re.DOTALL | re.MULTILINE
        left_out = r"^(`{3,}|:{3,})(\{math\}|python|text|bash).*?^\1$"
        text = re.sub(left_out, "", self.in_sight, flags=many)
        left_out = r"\$\$.*?\$\$|\$[^$]+\$|`[^`\n]+`|^:[\w-]+:[^\n]*|^[`:]{3,}[^\n]*"
        text = re.sub(left_out, " ", text, flags=many)
        return re.sub(r"\]\([^)]*\)|\{\w+\}", "] ", text)

    @cached_property
    def spoken(self) -> str:
        """The words that its code shows to a reader: what is asked and what was found,
        and what stands under pictures."""
        told = [part for call in self.calls("guess", "finding") for part in call.args]
        for source in self.code:
            keywords = (
                node
                for node in ast.walk(parsed(source))
                if isinstance(node, ast.keyword)
            )
            told += [each.value for each in keywords if each.arg == "caption"]
        constants = (node for part in told for node in ast.walk(part))
        return " ".join(
            node.value
            for node in constants
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )

    @property
    def equations(self) -> list[str]:
        """Those that stand by themselves, in sight."""
        return _displayed(self.in_sight)

    @cached_property
    def formulas(self) -> list[str]:
        """All of them, also inside a line, and folded."""
        text = re.sub(
            r"^(`{3,})(python|text|bash).*?^\1$|`[^`$\n]+`",
            " ",
            self.markdown,
            flags=re.DOTALL | re.MULTILINE,
        )
        inside = re.sub(r"\$\$.*?\$\$", " ", text, flags=re.DOTALL)
        return [*_displayed(text), *re.findall(r"\$([^$]+)\$", inside)]

    @cached_property
    def sections(self) -> dict[str, Source]:
        """Heading → what stands under it; under "" what stands above the first."""
        heading, found = "", {"": list[NotebookNode]()}
        for cell in self.cells:
            if cell.cell_type == "code":
                found[heading].append(cell)
                continue
            for piece in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
                if begins := re.match(r"## (.*)", piece):
                    heading = begins[1]
                found.setdefault(heading, []).append(new_markdown_cell(piece))
        return {heading: Source.of(cells) for heading, cells in found.items()}

    @property
    def headings(self) -> list[str]:
        """Of its sections."""
        return list(self.sections)[1:]

    @cached_property
    def before_exercises(self) -> Source:
        """What stands above the heading of the exercises."""
        above = takewhile(lambda each: each[0] != "Exercises", self.sections.items())
        return Source.of([cell for _, part in above for cell in part.cells])

    @cached_property
    def labels(self) -> list[str]:
        """What can be referred to: equations, exercises, sections."""
        found = re.findall(r"^:label: (\S+)|^\((\S+)\)=", self.markdown, re.MULTILINE)
        return [label for pair in found for label in pair if label]

    @cached_property
    def directives(self) -> list[Directive]:
        """Every block of the text, in order."""
        return list(_directives(self.markdown))

    def calls(self, *names: str) -> Iterator[ast.Call]:
        """Where its code calls one of some functions, as in `calls("claim")`."""
        for source in self.code:
            yield from calls(parsed(source), *names)

    @cached_property
    def supports(self) -> set[str]:
        """The article's statements that its claims speak about."""
        return {
            keyword.value.value
            for call in self.calls("claim", "finding")
            for keyword in call.keywords
            if keyword.arg == "supports" and isinstance(keyword.value, ast.Constant)
        }

    @cached_property
    def exercises(self) -> dict[str, Exercise]:
        """By id. A piece without its exercise makes one too, so that it is seen."""
        found: dict[str, Exercise] = {}
        above: list[ast.stmt] = []
        kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        for cell in self.cells:
            if cell.cell_type == "code":
                tree = parsed(cell.source)
                for id in {call.args[0].value for call in checks(tree)}:
                    exercise = found.setdefault(id, Exercise(id))
                    exercise.stubs.append(tree)
                    exercise.above = list(above)
                above += [node for node in tree.body if isinstance(node, kept)]
            else:
                for block in _directives(cell.source):
                    _collect(block, found)
        return found


def is_folded(cell: NotebookNode) -> bool:
    """Whether a reader has to unfold a code cell."""
    return "hide-input" in cell.metadata.get("tags", [])


def code_lines(code: str) -> list[str]:
    """The lines of code in which something stands."""
    return [line for line in code.splitlines() if line.strip()]


def words(text: str) -> int:
    """How many words there are in prose."""
    return len(re.findall(r"\b[^\W\d_][\w’'-]*", text))


def parsed(code: str) -> ast.Module:
    """The code of a cell, which may hold a notebook's magic."""
    return ast.parse(TransformerManager().transform_cell(code))


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Where code calls one of some functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in names:
                yield node


def checks(tree: ast.AST) -> Iterator[ast.Call]:
    """Where code calls `check("id", answer)`."""
    for call in calls(tree, "check"):
        match call.args:
            case [ast.Constant(value=str()), _]:
                yield call


@cache
def source(lesson: Lesson) -> Source:
    """What stands in a lesson's folder."""
    return Source((lesson.folder / "lesson.md").read_text(encoding="utf-8"))


@cache
def minutes(text: Source) -> Minutes:
    """How long a lesson takes.

    To read: its words, the formulas that stand by themselves, and the visible code
    above the exercises. To do: what its exercises say, and a minute for each question
    of the quiz. Lessons of the first edition say it themselves.
    """
    if said := re.search(r"(\d+) minutes to read, (\d+) to do", text.markdown):
        return Minutes(int(said[1]), int(said[2]))
    lines = sum(len(code_lines(code)) for code in text.before_exercises.visible)
    read = words(f"{text.prose} {text.spoken}") / WORDS + lines / LINES
    do = sum(exercise.minutes for exercise in text.exercises.values())
    for call in text.calls("quiz"):
        do += len(questions.load(ast.literal_eval(call.args[0])))
    return Minutes(_fives(read + EQUATION * len(text.equations)), _fives(do))


def _fives(number: float) -> int:
    return max(5, 5 * floor(number / 5 + 0.5))


def filled(text: str, lesson: Lesson, title: str) -> str:
    """A text of a lesson with everything that stands for something else replaced."""
    needs = f"{{chapter}}`{','.join(lesson.needs)}`"
    last = len(lesson.objectives)
    objectives = "\n".join(
        f"{n}. {each.can} ({{ref}}`{each.exercise}`){'.' if n == last else ';'}"
        for n, each in enumerate(lesson.objectives, 1)
    )
    for name, words in {
        "title": title,
        "needs": needs,
        "objectives": objectives,
        "minutes": str(minutes(source(lesson))),
    }.items():
        text = text.replace(f"{{{{ {name} }}}}", words)
    return linked(text)


def linked(text: str, chapters: str = "") -> str:
    """A text with links in the place of `{chapter}`.

    Args:
        text: of a notebook, or of another page.
        chapters: the folder of the notebooks, as seen from there.

    Raises:
        ValueError: where there is no such chapter, and none is planned.
    """

    def link(match: re.Match[str]) -> str:
        slugs = [slug.strip() for slug in match["slugs"].split(",")]
        if len(slugs) == 1 and slugs[0] in book.planned():
            the = "The" if match["c"] == "C" else "the"
            return f"{the} planned chapter “{book.planned()[slugs[0]].title}”"
        word = f"{match['c']}hapter"
        found = [book.lesson(slug) for slug in slugs]
        if len(found) == 1:
            return f"[{word} {found[0].number}]({chapters}{found[0].name}.ipynb)"
        *some, last = [f"[{one.number}]({chapters}{one.name}.ipynb)" for one in found]
        return f"{word}s {', '.join(some)} and {last}"

    return CHAPTER.sub(link, text)


def numbered(text: str) -> str:
    """A text with the names that lessons' pages have in the place of `chapters/slug`,
    as `_toc.yml` and links on the front page write it."""
    for lesson in book.lessons().values():
        text = re.sub(
            rf"\bchapters/{lesson.slug}(?![\w-])", f"chapters/{lesson.name}", text
        )
    return text


def _displayed(text: str) -> list[str]:
    found = re.finditer(
        r"^(?P<fence>`{3,}|:{3,})\{math\}\n(?::.*?\n)*(?P<block>.*?)^(?P=fence)$"
        r"|\$\$(?P<dollars>.*?)\$\$",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    return [match["block"] or match["dollars"] for match in found]


def _directives(text: str) -> Iterator[Directive]:
    for token in MarkdownIt().use(colon_fence_plugin).parse(text):
        if match := re.match(r"\{([\w-]+)\}\s*(.*)", token.info or ""):
            lines = token.content.splitlines()
            options = {}
            while lines and (option := re.match(r":([\w-]+):\s*(.*)", lines[0])):
                options[option[1]] = option[2].strip()
                lines.pop(0)
            name, argument = match[1], match[2].strip()
            where = slice(*token.map)
            yield Directive(name, argument, options, "\n".join(lines), where)


def _collect(block: Directive, found: dict[str, Exercise]) -> None:
    if block.name == "exercise":
        id = block.options.get("label", f"without a label: {block.argument}")
        found.setdefault(id, Exercise(id)).titles.append(block.argument)
    elif block.name == "solution":
        exercise = found.setdefault(block.argument, Exercise(block.argument))
        tokens = MarkdownIt().parse(block.body)
        code = [t.content for t in tokens if t.type == "fence" and t.info == "python"]
        exercise.solutions.append("\n".join(code))
        exercise.folded &= block.options.get("class") == "dropdown"
