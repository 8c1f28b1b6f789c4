"""A PDF of each lesson: its page as Chromium prints it, by the site's ``print.css``."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

from mtmm_lib.lesson.book import Lesson
from tools import browser
from tools.project import BUILD, lessons, site_address

FOLDER = BUILD / "pdf"
MARGINS = {"top": "16mm", "bottom": "18mm", "left": "17mm", "right": "17mm"}
FOOT = """\
<div style="font: 8px sans-serif; color: #56646f; width: 100%; margin: 0 17mm;
  display: flex; justify-content: space-between"><span>{address}</span>
  <span><span class="pageNumber"></span> / <span class="totalPages"></span></span></div>
"""


def printed(page: Page, address: str, lesson: Lesson) -> bytes:
    """A lesson of the site at ``address`` as a tagged PDF on A4."""
    name = f"chapters/{lesson.name}.html"
    return browser.show(page, f"{address}/{name}").pdf(
        format="A4",
        margin=MARGINS,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOT.format(address=f"{site_address()}/{name}"),
        print_background=True,
        tagged=True,
        outline=True,
    )


def write() -> list[Path]:
    """Print every lesson of the built site to ``_build/pdf``.

    Raises:
        SystemExit: there is no Chromium to print with.
    """
    made = []
    FOLDER.mkdir(exist_ok=True)
    try:
        with browser.chromium() as chromium, browser.served(BUILD / "html") as address:
            page = chromium.new_page(color_scheme="light")
            for lesson in lessons():
                made.append(FOLDER / f"{lesson.name}.pdf")
                made[-1].write_bytes(printed(page, address, lesson))
    except FileNotFoundError as error:
        raise SystemExit(f"The lessons are not printed: {error}.") from error
    return made
