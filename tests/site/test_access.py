"""What axe-core, the keyboard and a screen reader find on the pages."""

import pytest

from mtmm_lib.lesson import book
from tools import vendor

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
VIOLATIONS = """async ([rules, skipped]) => {
    document.getAnimations().forEach(animation => animation.finish());
    const options = {runOnly: rules, resultTypes: ['violations']};
    const page = {include: [['html']], exclude: skipped.map(part => [part])};
    const found = await axe.run(page, options);
    return found.violations.flatMap(rule => rule.nodes.map(node =>
        `${rule.id}: ${node.html.slice(0, 160)} (${node.failureSummary})`));
}"""


def skipped(name):
    """What needs no look of its own, and has most of the nodes: drawn formulas, which
    are read as MathML, and listings, whose colours the lessons have, too."""
    return ["mjx-math", *["pre"] * name.startswith("_modules/")]


@pytest.mark.parametrize("third", [0, 1, 2])
def test_axe_finds_nothing(visit, pages, third):
    """All rules on the light page; on the dark one those that colours can break."""
    axe = (vendor.folder("axe-core") / "axe.min.js").read_text(encoding="utf-8")
    opened, found = visit(), {}
    for name in pages[third::3]:
        opened.page.emulate_media(color_scheme="light")
        page = opened.open(name)
        page.evaluate(axe)
        found[name] = page.evaluate(VIOLATIONS, [RULES, skipped(name)])
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        colours = [["color-contrast"], skipped(name)]
        found[name, "dark"] = page.evaluate(VIOLATIONS, colours)
    assert {where: what for where, what in found.items() if what} == {}


def test_a_slider_says_its_name_and_its_value(visit):
    page = visit().open("index.html")
    slider = page.locator(".mtmm-explorer .widget-slider").first
    handle, words = slider.locator(".noUi-handle"), slider.locator(".widget-readout")
    assert handle.get_attribute("aria-label") == "relatedness of the tasks"
    assert handle.get_attribute("aria-valuetext") == words.inner_text() == "0.8"
    handle.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "handle => handle.getAttribute('aria-valuetext') === '0.7'",
        arg=handle.element_handle(),
    )
    assert words.inner_text() == "0.7"


def test_the_tab_key_passes_formulas_by_unless_they_scroll(visit):
    wide, narrow = visit(width=1280), visit(width=390)
    reached = """() => [...document.querySelectorAll('mjx-container[tabindex]')]
        .every(box => box.scrollWidth > box.clientWidth)"""
    scrolls = "div.math[tabindex='0']"
    for opened in (wide, narrow):
        name = book.lesson("hard-parameter-sharing").name
        page = opened.open(f"chapters/{name}.html")
        assert page.locator("mjx-container").count() > 50
        assert page.evaluate(reached)
    assert wide.page.locator(scrolls).count() == 0
    assert page.locator(scrolls).count() == page.evaluate(
        """() => [...document.querySelectorAll('div.math')].filter(
            box => box.scrollWidth > box.clientWidth).length"""
    )
