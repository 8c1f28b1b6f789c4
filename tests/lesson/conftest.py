"""A lesson that uses everything once, run in a kernel of its own; and a browser to look
at it."""

import os
import shutil
from collections.abc import Iterator

import pytest

CELLS = {
    "start": """
from matplotlib import pyplot as plt
from mtmm_lib.lesson import *
start("missing-weak-and-dominant-modalities")
""",
    "figure": """
fig, ax = plt.subplots()
ax.plot([1, 3, 2])
figure(fig, alt="A line <up> & down", caption="Up & down.")
""",
    "explore": """
def draw(a, b=0, c=True):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.bar(["a", "b", "c"], [a, b, c])
    return fig
explore(draw, alt="a {a}", a=[1, 2, 3], labels={"a": "first"})
""",
    "explore two": 'explore(draw, alt="a {a}, b {b}", a=[1, 2, 3], b=[4, 5], '
    'start={"a": 1})',
    "explore three": (
        'explore(draw, alt=lambda a, b, c: f"a {a}, b {b}, c {c}", a=[1, 2], b=[4, '
        "5, 6], c=[False, True])"
    ),
    "claim": 'claim("Two is <b>more</b> than one", at_least(2, 1), supports="A1", '
    'verdict="refuted")',
    "measured": 'measured(finding("Two of `two` exceeds one by {number}", '
    'at_least(2, 1, "points"), supports="A1"), finding("<b>", at_least(3, 2)))',
    "guess": 'guess("a-b", "Two or *three*?", {"two": "It is <b>.", "three": "No. "}, '
    'right="two")',
    "check": """
def four(x):
    ...
check("no such exercise", four)
""",
    "quiz": 'quiz("everything-is-a-mapping")',
    "source": "source(at_least)",
    "footer": "footer()",
}


@pytest.fixture(scope="session")
def notebook() -> dict:
    """The executed notebook."""
    import nbformat
    from nbclient import NotebookClient

    lesson = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS.values()]
    )
    NotebookClient(lesson, timeout=120, kernel_name="python3").execute(
        env=dict(os.environ, MTMM_SEED="3")
    )
    return lesson


@pytest.fixture(scope="session")
def outputs(notebook: dict) -> dict[str, list[dict]]:
    """The outputs of each cell."""
    return {
        name: cell["outputs"]
        for name, cell in zip(CELLS, notebook["cells"], strict=True)
    }


@pytest.fixture(scope="session")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    path = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if path is None:
        pytest.skip("no Chromium on this machine")
    quiet = ["background-networking", "component-update", "sync", "gpu"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", *(f"--disable-{what}" for what in quiet)],
        )
        yield chromium
        chromium.close()
