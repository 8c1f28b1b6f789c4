"""Source that is shown is the source that runs."""

import ast
from pathlib import Path

import pytest

import mtmm_lib
from mtmm_lib.lesson import source
from mtmm_lib.lesson.code import without_docstrings

FILES = sorted(Path(mtmm_lib.__file__).parent.rglob("*.py"))


def bare(text: str) -> str:
    """The syntax tree without its docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            if len(node.body) > 1:
                node.body.pop(0)
    return ast.dump(tree)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_only_docstrings_are_left_out(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    shown = without_docstrings(text)
    assert bare(shown) == bare(text)
    assert [line for line in shown.splitlines() if line.lstrip().startswith("#")] == [
        line for line in text.splitlines() if line.lstrip().startswith("#")
    ]


class Example:
    """Says something."""

    def double(self, x):
        """Twice x."""

        return 2 * x  # a comment stays

    def nothing(self):
        """Only words."""


def test_source_shows_classes_and_methods(capsys) -> None:
    source(Example.double)
    assert (
        capsys.readouterr().out
        == "def double(self, x):\n    return 2 * x  # a comment stays\n"
    )
    source(Example.double, doc=True)
    assert '"""Twice x."""' in capsys.readouterr().out
    source(Example)
    shown = capsys.readouterr().out
    assert (
        "Says something" not in shown and "Twice" not in shown and "Only words" in shown
    )
    with pytest.raises(TypeError):
        source(len)


def test_source_is_highlighted_and_escaped(outputs) -> None:
    (output,) = outputs["source"]
    assert "<span" in output["data"]["text/html"] and "-&gt;" in output["data"][
        "text/html"
    ].replace("</span>", "")
    assert output["data"]["text/plain"].startswith("def at_least(")
