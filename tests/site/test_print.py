"""What a lesson is on paper."""

import re
import shutil

import pytest

from tools import pdf
from tools.project import lessons

LESSON = next(lesson for lesson in lessons() if lesson.slug == "hard-parameter-sharing")
WIDTH = 665  # of the paper, without its margins
CUT = """() => [...document.querySelectorAll('article :is(pre, img, svg, table, p)')]
    .filter(part => part.getBoundingClientRect().right > window.innerWidth
        || (part.localName === 'pre' && part.scrollWidth > part.clientWidth))
    .map(part => part.outerHTML.slice(0, 200))"""


def test_a_lesson_on_paper_is_whole_and_has_nothing_to_press(visit):
    page = visit(width=WIDTH).open(f"chapters/{LESSON.name}.html")
    page.emulate_media(media="print")
    assert page.locator("h1:visible").inner_text().endswith(LESSON.title)
    assert page.evaluate(CUT) == []
    pressed = "summary:not(.mtmm-choice > summary)"  # a guess's choices are read
    for gone in ("nav", ".toggle-button", ".copybtn", ".noUi-handle", pressed):
        assert page.locator(f"{gone}:visible").count() == 0, gone
    assert page.locator("div.exercise:visible").count() >= 4
    assert page.locator("div.solution:visible").count() == 0, "it is to be worked on"
    explorers = page.locator(".mtmm-explorer")
    assert explorers.count() >= 1
    for explorer in explorers.all():
        assert explorer.locator("img:visible").count() == 1
        assert explorer.locator(".widget-readout:visible").count() >= 1


def test_a_lesson_becomes_a_file(browser, address):
    page = browser.new_page()
    made = pdf.printed(page, address, LESSON)
    page.close()
    assert made.startswith(b"%PDF") and b"/StructTreeRoot" in made
    assert 8 <= len(re.findall(rb"/Type\s*/Page\b", made)) <= 30


def test_without_a_browser_it_is_said_how_to_get_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="not printed: no Chromium.*install chromium"):
        pdf.write()
