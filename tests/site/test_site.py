"""What a reader without a kernel can do on the built site."""

import json
import os
import re
from html.parser import HTMLParser

import pytest

from mtmm_lib.lesson import book
from tools.lesson import source
from tools.project import CHAPTERS, lessons, repository

PAGES = [f"chapters/{lesson.name}.html" for lesson in lessons()]
EXPLORED = ["index.html", *PAGES]

every_chapter = pytest.mark.parametrize("name", PAGES)


def lesson_of(page):
    """The lesson that a page shows."""
    return lessons()[PAGES.index(page)]


SILENT = (
    "() => [...document.querySelectorAll('img')].filter(i => !(i.alt || "
    "'').trim()).map(i => i.outerHTML)"
)
UNNAMED = """() => [...document.querySelectorAll('article svg')].filter(drawing =>
    drawing.getBoundingClientRect().width > 60 && !drawing.getAttribute('aria-label')
    && !drawing.closest('mjx-container, button')).map(drawing => drawing.outerHTML)"""
CUT_OFF = """() => [...document.querySelectorAll('article *')].filter(element => {
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.right <= window.innerWidth + 1) return false;
    for (let up = element.parentElement; up; up = up.parentElement)
        if (/auto|scroll|hidden/.test(getComputedStyle(up).overflowX)) return false;
    return true;
}).map(element => element.tagName + '.' + element.className)"""


@pytest.mark.parametrize("half", [0, 1])
def test_every_page_loads_reads_aloud_and_fits_a_phone(visit, pages, half):
    """No script error, no failed or foreign request, a text for every picture, no
    sideways scrolling."""
    opened = visit(width=390)
    for name in pages[half::2]:
        page = opened.open(name)
        assert page.evaluate(SILENT) == [], (
            f"{name}: pictures without a text alternative"
        )
        assert page.evaluate(UNNAMED) == [], (
            f"{name}: drawings without a text alternative"
        )
        assert page.evaluate(CUT_OFF) == [], f"{name}: cut off at 390 pixels"
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, name
        assert page.locator("h1:visible").count() == 1, f"{name} has not one title"


def test_code_of_88_columns_is_not_cut(visit):
    """Beside a scroll bar of 15 pixels, too; on a phone it scrolls in its own box."""
    name = next(page for page in PAGES if "hard-parameter-sharing" in page)
    for width, cut in ((1280 - 15, False), (390, True)):
        page = visit(width=width).open(name)
        for kind in ("div.cell_input pre", "pre.mtmm-code"):
            box = page.locator(kind).first
            box.evaluate("pre => pre.prepend('x'.repeat(88) + '\\n')")
            assert box.evaluate("pre => pre.scrollWidth > pre.clientWidth") == cut
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", EXPLORED)
def test_sliders_and_buttons_change_the_picture_without_a_kernel(visit, name):
    page = visit().open(name)
    explorers = page.locator(".widget-subarea").filter(has=page.locator("img"))
    explorers.first.wait_for()
    assert explorers.count() >= 1
    for index in range(explorers.count()):
        explorer = explorers.nth(index)
        explorer.scroll_into_view_if_needed()
        image = explorer.locator("img:visible")
        assert image.count() == 1
        handles = explorer.locator(".noUi-handle:visible")
        toggles = explorer.locator(".widget-toggle-buttons:visible")
        assert handles.count() + toggles.count() >= 1
        for number in range(handles.count()):
            before = image.get_attribute("src"), image.get_attribute("alt")
            box = explorer.locator(".noUi-target:visible").nth(number).bounding_box()
            at = handles.nth(number).bounding_box()
            middle = at["x"] + at["width"] / 2
            goal = (
                box["x"]
                + (0.05 if middle > box["x"] + box["width"] / 2 else 0.95)
                * box["width"]
            )
            page.mouse.move(middle, at["y"] + at["height"] / 2)
            page.mouse.down()
            page.mouse.move(goal, at["y"] + at["height"] / 2, steps=8)
            page.mouse.up()
            assert image.count() == 1
            assert image.get_attribute("src") != before[0], (
                f"slider {number} of explorer {index}"
            )
            assert image.get_attribute("alt") != before[1], (
                "the words follow the picture"
            )
            handles.nth(number).focus()
            after = image.get_attribute("src")
            page.keyboard.press("ArrowRight" if goal < middle else "ArrowLeft")
            assert image.get_attribute("src") != after, "the keyboard moves the slider"
        for number in range(toggles.count()):
            before = image.get_attribute("src")
            toggles.nth(number).locator("button:not(.mod-active)").first.click()
            assert image.count() == 1 and image.get_attribute("src") != before


@every_chapter
def test_the_quiz_answers(visit, name):
    page = visit().open(name)
    questions = page.locator(".Quiz")
    questions.first.wait_for()
    assert 5 <= questions.count() <= 8
    marks = set()
    for index in range(questions.count()):
        question = questions.nth(index)
        for choice in range(question.locator(".MCButton").count()):
            button = question.locator(".MCButton").nth(choice)
            button.click()
            assert question.locator(".Feedback").inner_text().strip(), (
                "every choice has feedback"
            )
            marks |= set(
                re.findall(r"(?:in)?correctButton", button.get_attribute("class"))
            )
    assert marks == {"correctButton", "incorrectButton"}


@every_chapter
def test_solutions_unfold(visit, name):
    page = visit().open(name)
    solutions = page.locator("div.solution")
    assert solutions.count() == len(source(lesson_of(name)).exercises)
    for index in range(solutions.count()):
        solution = solutions.nth(index)
        body = solution.locator("> .section, > section, > .solution-content").first
        assert not body.is_visible()
        solution.locator("button, summary").first.click()
        body.wait_for(state="visible")
        assert body.inner_text().strip()


@every_chapter
def test_mathematics_is_set(visit, name):
    page = visit().open(name)
    formulas = page.locator("span.math, div.math")
    assert formulas.count() > 5
    assert (
        page.locator("span.math mjx-container, div.math mjx-container").count()
        >= formulas.count()
    )
    assert page.locator("mjx-merror").count() == 0
    assert page.evaluate("() => document.fonts.check('16px MJXTEX')")


@pytest.mark.parametrize("name", EXPLORED)
def test_the_page_can_be_dark(visit, name):
    page = visit().open(name)

    def brightness(what):
        colour = page.evaluate(
            f"() => getComputedStyle(document.querySelector('{what}')).color"
        )
        return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3

    ground = "() => getComputedStyle(document.body).backgroundColor"
    seen = {}
    for _ in range(3):
        seen[page.evaluate("() => document.documentElement.dataset.mode")] = (
            page.evaluate(ground),
            brightness("article p"),
        )
        page.locator(".theme-switch-button:visible").first.click()
    assert set(seen) == {"auto", "light", "dark"}
    assert (
        seen["light"][0] != seen["dark"][0]
        and seen["light"][1] < 100 < 150 < seen["dark"][1]
    )
    assert seen["auto"] == seen["light"]
    dark = visit(dark=True).open(name)
    assert dark.evaluate("() => document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("words", ["fusion", "negative transfer", "负迁移"])
def test_search_finds(visit, words):
    page = visit().open(f"search.html?q={words.replace(' ', '+')}")
    page.locator("#search-results li a").first.wait_for()
    assert page.locator("#search-results li").count() >= 1


@every_chapter
def test_a_lesson_opens_elsewhere_and_can_be_reported_on(visit, address, name):
    page = visit().open(name)
    links = page.locator("header a, .header-article a, .article-header-buttons a")
    targets = [links.nth(index).get_attribute("href") for index in range(links.count())]
    path = name.replace(".html", ".ipynb")
    place = repository().removeprefix("https://")
    owner = place.removeprefix("github.com/")
    assert (
        f"https://colab.research.google.com/github/{owner}/blob/main/{path}" in targets
    )
    assert f"https://mybinder.org/v2/gh/{owner}/main?urlpath=lab/tree/{path}" in targets
    assert any(target.startswith(f"https://{place}/issues/new?") for target in targets)
    download = next(
        target
        for target in targets
        if target.endswith(".ipynb") and "_sources" in target
    )
    answer = page.request.get(f"{address}/{name.rsplit('/', 1)[0]}/{download}")
    assert answer.ok and answer.json() == json.loads(
        (CHAPTERS / path.split("/")[1]).read_text(encoding="utf-8")
    )


class Links(HTMLParser):
    """The addresses that a page refers to; what stands inside a script is none."""

    def __init__(self, text):
        super().__init__()
        self.found = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found |= {
            value for name, value in attributes if name in ("href", "src") and value
        }


def test_links_lead_somewhere(site, pages):
    """Every link inside the site points to a file, and to a place in it, that is
    there."""
    texts = {name: (site / name).read_text(encoding="utf-8") for name in pages}
    broken = []
    for name, text in texts.items():
        for link in Links(text).found:
            if re.match(r"[a-z]+:|//", link):
                continue
            path, _, place = link.partition("#")
            target = (site / name).parent / path.split("?")[0] if path else site / name
            other = texts.get(os.path.relpath(target, site).replace(os.sep, "/"), "")
            # where a module's first page is its package's, the way back from its code
            # names the package: it leads to the page, not to the place
            loose = name.startswith("_modules/")
            if not target.exists() or (
                place and other and not loose and f'id="{place}"' not in other
            ):
                broken.append(f"{name}: {link}")
    assert broken == []


def test_the_front_page_says_what_it_has_to(visit):
    page = visit().open("index.html")
    text = page.locator("article").inner_text()
    for words in ("For whom it is", "learning", "teach", "research", "make lab"):
        assert words in text
    assert page.locator("article svg[role=img]:visible").count() == 2  # strip and map


@pytest.mark.parametrize("width", [1280, 390])
def test_the_map_leads_to_every_lesson(visit, width):
    page = visit(width=width).open("index.html")
    boxes = page.locator(".mtmm-map .box")
    assert boxes.count() == len(book.course())
    links = page.locator(".mtmm-map a.box:visible")
    assert [links.nth(n).get_attribute("href") for n in range(links.count())] == PAGES
    links.last.click()
    assert page.url.endswith(PAGES[-1]) and lessons()[-1].title in page.title()


def test_pages_read_the_address_of_the_repository(visit):
    assert (
        f"git clone {repository()}"
        in visit().open("pages/how-to.html").locator("article").inner_text()
    )


def test_the_ledger_shows_the_claims_of_the_chapters(visit):
    page = visit().open("pages/generated/ledger.html")
    text = page.locator("article").inner_text()
    assert "Measured:" in text and "standard errors" in text and "supported" in text
    for name in PAGES:
        assert page.locator(f"article a[href*='{name}']").count() >= 1


def test_the_reference_shows_signatures_and_sources(visit):
    page = visit().open("pages/generated/reference/mtmm_lib.training.html")
    assert page.locator("dt#mtmm_lib\\.training\\.fit").count() == 1
    assert "balancer" in page.locator("dt#mtmm_lib\\.training\\.fit").inner_text()
    assert page.locator("a[href*='_modules/mtmm_lib/training']").count() >= 1
