"""Docstrings in Markdown, as the library's reference on the site reads them."""

import pytest

from tools.site import from_markdown


def read(docstring: str) -> str:
    lines = docstring.split("\n")
    from_markdown(None, "class", "name", None, None, lines)
    return "\n".join(lines)


@pytest.mark.parametrize(
    "markdown, text",
    [
        ("`a` and `Batch`es", "``a`` and ``Batch``\\ es"),
        ("with $k < 1$, a * b", r"with :math:`k < 1`, a \* b"),
        ("so\n\n$$ a\n  + b $$\n\nis", "so\n\n\n.. math:: a + b\n\n\nis"),
        ("\\[ a,\n   \\quad b, \\]\nwith", "\n.. math:: a, \\quad b,\n\nwith"),
    ],
)
def test_what_stands_in_a_line_and_by_itself(markdown, text):
    assert read(markdown) == text


def test_indented_paragraphs_are_code_outside_of_sections_only():
    code = "    a = `b` * 2  # $\n\n    c = a"
    section = "Args:\n    first: of\n        two lines.\n\n    second: `b`."
    assert read(f"As in\n\n{code}\n\nand so on.\n\n{section}") == (
        "As in\n\n.. code-block:: python\n    :force:\n\n"
        f"{code}\n\nand so on.\n\n{section.replace('`b`', '``b``')}"
    )


def test_a_table_becomes_a_list_table():
    lines = ["What happens:", "", "| | as $x$ |", "|---|---|", "| `a` | one |"]
    lines += ["| b | `[N, d]` |", "", "And so on."]
    assert read("\n".join(lines)).split("\n") == [
        "What happens:",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - ",
        "     - as :math:`x`",
        "   * - ``a``",
        "     - one",
        "   * - b",
        "     - ``[N, d]``",
        "",
        "And so on.",
    ]
