"""A live run in JupyterLab, pressed in a browser as a reader presses it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from tools.project import ROOT

CELLS = [
    """
import time
from mtmm_lib.lesson import play, plots
plots.style()

def count(rate):
    step = 0
    while rate < 0.9 or step < 5:
        step += 1
        time.sleep(0.01)
        yield min(step / 1000, 1), 1 / (1 + rate * step)

player = play(count, alt="It ends at {last:.3f}.", rate=(0.1, 1.0, "log"))
player
""",
    'print("a run goes on:", player.going)',
]
PATIENCE = 120_000  # milliseconds, for a machine that has other things to do


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a notebook in a JupyterLab of the test's own."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, tmp_path / "play.ipynb")
    names = ("CONFIG", "RUNTIME", "DATA")
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in names}
    names = ("SETTINGS", "WORKSPACES")
    own |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name.lower()) for name in names}
    own |= {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(ROOT)}
    settings = tmp_path / "settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    place = settings / "notification.jupyterlab-settings"
    place.write_text(json.dumps(quiet), encoding="utf-8")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    log = tmp_path / "lab.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command, "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"],
            cwd=tmp_path,
            env={**os.environ, **own},
            stdout=file,
            stderr=file,
        )
    told = tmp_path / "runtime" / f"jpserver-{server.pid}.json"
    while server.poll() is None and not (told.exists() and told.stat().st_size):
        time.sleep(0.1)
    try:
        assert server.poll() is None, log.read_text()
        of = json.loads(told.read_text())
        yield f"{of['url']}lab/tree/play.ipynb?token={of['token']}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def page(browser: Browser, lab: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    opened = context.new_page()
    opened.goto(lab)
    yield opened
    expect.set_options(timeout=5_000)  # as it was
    context.close()


def run_cell(page: Page, number: int) -> None:
    """Press Shift+Enter, again where JupyterLab, which has a kernel but not yet its
    session, has forgotten it."""
    cell = page.locator(".jp-CodeCell").nth(number)
    prompt = cell.locator(".jp-InputPrompt")
    for _ in range(PATIENCE // 1000):
        if prompt.inner_text() == "[ ]:":
            cell.locator(".cm-content").click()
            page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(1000)
        if prompt.inner_text() not in ("[ ]:", "[*]:"):
            return
    raise AssertionError(f"cell {number} has not ended: {prompt.inner_text()}")


def test_a_reader_plays(page: Page) -> None:
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    run_cell(page, 0)
    run = page.get_by_role("button", name="Run", exact=True)
    picture, status = (
        page.locator(".mtmm-play img"),
        page.locator(".mtmm-play [role=status]"),
    )
    expect(run).to_be_visible()
    expect(status).to_have_count(1)
    rate = page.get_by_label("rate")
    expect(rate).to_have_value("0.316")

    run.click()
    expect(status).to_have_text("Run 1: going on")
    page.wait_for_function("document.querySelector('.mtmm-play progress').value > 0.01")
    before = picture.get_attribute("src")
    expect(picture).not_to_have_attribute("src", before)

    run_cell(page, 1)
    expect(page.get_by_text("a run goes on: True")).to_be_visible()

    page.get_by_role("button", name="Stop").click()
    expect(status).to_contain_text("Run 1: stopped at step")
    expect(page.locator(".mtmm-play li")).to_have_count(1)

    rate.fill("0.987")
    rate.press("Enter")
    # the kernel has it when it is idle again; a press may overtake a value on the way
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    run.press("Enter")
    expect(status).to_contain_text("Run 2: It ends at 0.168.")
    expect(run).to_be_focused()
    words = page.locator(".mtmm-play li")
    expect(words).to_have_count(2)
    expect(words.last).to_contain_text("Run 2, rate = 0.987: It ends at 0.168. (loss")
    alt = picture.get_attribute("alt")
    assert "Run 1, rate = 0.316: stopped" in alt and "Run 2, rate = 0.987: It" in alt
