"""The progress bar: hidden from files, and gone when it is done."""

import io
import sys

import nbformat
from nbclient import NotebookClient

from mtmm_lib.bar import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_is_seen_in_a_terminal_and_not_in_a_file(monkeypatch):
    seen = {}
    for kind in (Terminal, io.StringIO):
        monkeypatch.setattr(sys, "stderr", kind())
        assert list(bar(range(3), desc="steps", file=sys.stderr)) == [0, 1, 2]
        seen[kind] = sys.stderr.getvalue()
    assert "steps" in seen[Terminal] and seen[io.StringIO] == ""


def test_a_saved_notebook_holds_no_bar():
    code = """
    from mtmm_lib.bar import bar
    for _ in bar(range(3), desc="steps"):
        pass
    with bar(total=2) as shown:
        shown.update(2)
    broken = bar(range(3))
    try:
        for step in broken:
            1 / step
    except ZeroDivisionError:
        broken.close()
    len(list(bar(range(3), disable=True)))
    """
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(lesson, kernel_name="python3").execute()
    *bars, result = lesson.cells[0].outputs
    assert len(bars) == 3 and all(not output["data"] for output in bars)
    assert result["data"]["text/plain"] == "3"
