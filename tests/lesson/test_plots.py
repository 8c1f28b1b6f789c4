"""Figures: a text alternative always, sharp and small, and closed after use."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from matplotlib import pyplot as plt
from nbclient import NotebookClient
from nbconvert import LatexExporter
from PIL import Image

from mtmm_lib.lesson import COLOURS, figure, plots

WHITE = (255, 255, 255)


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.style()
        yield
    plt.close("all")


def test_a_figure_needs_words() -> None:
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="text alternative"):
            figure(plt.figure(), alt)


def test_a_figure_is_closed_and_has_twice_the_pixels(capsys) -> None:
    fig, ax = plt.subplots()
    picture = plots.pixels(fig, 2)
    tag = plots.tag(plots.encode(picture, 256), picture.width / 2, "An <empty> plot")
    assert plt.get_fignums() == []
    assert (
        'alt="An &lt;empty&gt; plot"' in tag
        and 'width="680"' in tag
        and "max-width:100%" in tag
    )
    decoded = Image.open(
        io.BytesIO(base64.b64decode(re.search('base64,([^"]+)', tag)[1]))
    )
    assert decoded.format == "WEBP" and decoded.size == (1360, 760)
    figure(plt.figure(), "Nothing", caption="A caption.")
    assert capsys.readouterr().out == "A caption.\n"


def test_print_shows_what_the_page_shows() -> None:
    """LaTeX, and so PDF, takes the PNG; of the size that the figure has on the page."""
    code = """
    from matplotlib import pyplot as plt
    from mtmm_lib.lesson import explore, figure, plots
    plots.style()
    def draw(a):
        fig, ax = plt.subplots()
        ax.plot([0, a])
        return fig
    figure(draw(1), "A line")
    explore(draw, alt="A line to {a}", a=[1, 2, 3])
    """
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(lesson, kernel_name="python3").execute()
    first, second = lesson.cells[0].outputs
    for output, scale in ((first, 2), (second, 1.5)):
        picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        assert picture.format == "PNG" and picture.size == (680 * scale, 380 * scale)
        assert picture.info["dpi"] == pytest.approx((scale * 100,) * 2, rel=1e-3)
    body, resources = LatexExporter().from_notebook_node(lesson)
    assert body.count(r"\includegraphics") + body.count(r"\adjustimage") >= 2
    assert len(resources["outputs"]) == 2


def test_few_colours_leave_the_palette_as_it_is() -> None:
    """The lines' colours differ by at most four of 255 steps from those asked for."""
    fig, ax = plt.subplots()
    for i in range(len(COLOURS)):
        ax.plot([0, 1], [i, i], lw=12)
    picture = plots.pixels(fig, 1.5)
    for colours in (32, 64, 128, 256):
        found = np.array(
            Image.open(io.BytesIO(plots.encode(picture, colours))).convert("RGB")
        ).reshape(-1, 3)
        assert len(np.unique(found, axis=0)) <= colours
        for code in COLOURS.values():
            wanted = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)])
            assert np.abs(found - wanted).max(1).min() <= 4, code
        assert tuple(found[0]) == WHITE
