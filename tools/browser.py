"""Chromium without a window, a folder served to it, and what to wait for on a page."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

WIDGETS_ARE_SHOWN = """() => {
    const view = 'script[type="application/vnd.jupyter.widget-view+json"]';
    const shown = document.querySelectorAll('.widget-subarea').length;
    return shown >= document.querySelectorAll(view).length;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, which may ask nobody for anything of its own.

    Raises:
        FileNotFoundError: there is none.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise FileNotFoundError(
            "no Chromium on this machine; `apt-get install chromium`, or your system's "
            "way to install it, helps"
        )
    quiet = ["background-networking", "component-update", "sync", "gpu"]
    arguments = ["--no-sandbox", *(f"--disable-{what}" for what in quiet)]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which ``folder`` is served on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def show(page: Page, address: str) -> Page:
    """Go to a page of the site and wait until its mathematics and widgets are there."""
    page.goto(address, wait_until="load")
    page.wait_for_function(WIDGETS_ARE_SHOWN)
    page.evaluate("() => window.MathJax?.startup?.promise")
    return page
