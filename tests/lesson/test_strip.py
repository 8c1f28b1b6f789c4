"""The picture: every arrow is there, the right ones are highlighted, and all of it lies
in its frame."""

import xml.etree.ElementTree as ET

import pytest

from mtmm_lib.lesson import book, strip
from mtmm_lib.lesson.article import ARROWS

SVG = "{http://www.w3.org/2000/svg}"


def pictures(chapter: str | None) -> list[ET.Element]:
    return [ET.fromstring(strip.svg(chapter, tall=tall)) for tall in (False, True)]


def words(element: ET.Element) -> set[str]:
    return {"".join(text.itertext()) for text in element.iter(f"{SVG}text")}


@pytest.mark.parametrize("chapter", [None, *book.lessons()])
def test_the_chapters_arrows_are_highlighted(chapter: str | None) -> None:
    expected = set(book.lesson(chapter).arrows if chapter else ())
    for picture in pictures(chapter):
        groups = [
            group for group in picture.iter(f"{SVG}g") if words(group) & set(ARROWS)
        ]
        assert {word for group in groups for word in words(group)} == set(ARROWS)
        assert {
            word
            for group in groups
            if group.get("class") == "on"
            for word in words(group)
        } == expected


def test_the_words_name_what_is_highlighted() -> None:
    assert strip.alt("missing-weak-and-dominant-modalities").endswith(
        "Highlighted: fusion and balancer."
    )
    assert strip.alt("everything-is-a-mapping").endswith("Highlighted: every arrow.")
    assert "Highlighted" not in strip.alt(None) + strip.alt("concepts-and-connections")
    for picture in pictures("missing-weak-and-dominant-modalities"):
        assert picture.get("role") == "img" and picture.get("aria-label") == strip.alt(
            "missing-weak-and-dominant-modalities"
        )


def test_both_pictures_say_the_same() -> None:
    wide, tall = (
        {word for line in words(picture) for word in line.split()}
        for picture in pictures(None)
    )
    assert (
        wide == tall
        and {"inputs", "representation", "predictions", "losses", "update"} < wide
    )


@pytest.mark.parametrize("tall", [False, True])
def test_everything_lies_in_the_frame(tall: bool) -> None:
    picture = ET.fromstring(strip.svg(tall=tall))
    width, height = map(float, picture.get("viewBox").split()[2:])
    for element in picture.iter():
        x, y = (float(element.get(axis, element.get(f"c{axis}", 1))) for axis in "xy")
        w, h = (float(element.get(side, 0)) for side in ("width", "height"))
        assert 0 <= x <= x + w <= width and 0 <= y <= y + h <= height, ET.tostring(
            element
        )


def test_a_file_of_its_own_brings_its_colours() -> None:
    picture = ET.fromstring(strip.standalone())
    assert "prefers-color-scheme:dark" in "".join(
        style.text for style in picture.iter(f"{SVG}style")
    )


def test_the_page_shows_the_picture_that_fits(browser) -> None:
    tab = browser.new_page()
    for width, shown in ((390, "tall"), (1000, "wide")):
        tab.set_viewport_size({"width": width, "height": 800})
        tab.set_content(
            '<meta name="viewport" content="width=device-width">'
            + strip.html("everything-is-a-mapping")
        )
        visible = tab.locator("svg:visible")
        assert visible.count() == 1 and shown in visible.get_attribute("class")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        outside = visible.evaluate("""svg => {
            const frame = svg.getBoundingClientRect();
            const out = box => box.left < frame.left || box.right > frame.right
                || box.bottom > frame.bottom;
            const words = [...svg.querySelectorAll("text")];
            return words.filter(text => out(text.getBoundingClientRect())).length;
        }""")
        assert outside == 0
    tab.close()
