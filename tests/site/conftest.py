"""The built site, served on this machine, in a browser that may ask nobody else for
anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Page, Request, Route

from tools import browser as chromium
from tools import vendor
from tools.project import BUILD, ROOT

SITE = BUILD / "html"


@pytest.fixture(scope="session")
def site(tmp_path_factory, testrun_uid: str) -> Path:
    """The folder of the site, built once per run of the tests (`make test` builds it
    before)."""
    if os.environ.get("MTMM_SITE_IS_BUILT") != "1":
        with FileLock(
            tmp_path_factory.getbasetemp().parent / f"site-{testrun_uid}.lock"
        ) as lock:
            done = Path(lock.lock_file).with_suffix(".done")
            if not done.exists():
                subprocess.run(
                    [sys.executable, "-m", "tools.book"], cwd=ROOT, check=True
                )
                done.touch()
    if not all(vendor.folder(package).exists() for package in vendor.FILES):
        pytest.skip(
            "built without npm: mathematics and widgets would come from the network"
        )
    return SITE


@pytest.fixture(scope="session")
def pages(site: Path) -> list[str]:
    """Every page that has the book's frame."""
    names = (path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return sorted(
        name
        for name in names
        if not name.startswith(("_static/", ".")) and name != "404.html"
    )


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    with chromium.served(site) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    try:
        with chromium.chromium() as started:
            yield started
    except FileNotFoundError as error:
        pytest.skip(str(error))


class Visit:
    """A page of the site, and everything that went wrong on it."""

    def __init__(self, page: Page, address: str):
        self.page, self.address, self.problems = page, address, []
        page.on(
            "pageerror", lambda error: self.problems.append(f"script error: {error}")
        )
        page.on(
            "console",
            lambda text: (
                text.type == "error" and self.problems.append(f"console: {text.text}")
            ),
        )
        page.on("requestfailed", self._failed)
        page.on(
            "response",
            lambda response: (
                response.ok or self._answered(response.status, response.url)
            ),
        )
        page.route("**/*", self._guard)

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by going on to the next page
            self.problems.append(f"request failed ({request.failure}): {request.url}")

    def _answered(self, status: int, url: str) -> None:
        if status >= 400:
            self.problems.append(f"{status}: {url}")

    def _guard(self, route: Route) -> None:
        url = route.request.url
        if url.startswith((self.address, "data:", "blob:")):
            route.continue_()
        else:
            self.problems.append(f"asked another host: {url}")
            route.abort()

    def open(self, name: str) -> Page:
        """Go to a page and wait until its mathematics and widgets are there."""
        return chromium.show(self.page, f"{self.address}/{name}")


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Visit]]:
    """`visit(width=…, dark=…)`: a fresh tab; in the end there may have been no problem
    on any page."""
    tabs: list[tuple[Visit, object]] = []

    def start(width: int = 1280, dark: bool = False) -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
        )
        opened = Visit(context.new_page(), address)
        tabs.append((opened, context))
        return opened

    yield start
    problems = [
        f"{opened.page.url}: {problem}"
        for opened, _ in tabs
        for problem in opened.problems
    ]
    for _, context in tabs:
        context.close()
    assert problems == []
