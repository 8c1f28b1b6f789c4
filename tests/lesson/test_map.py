"""The map of the lessons, as the book is and as it will be with thirty lessons: every
need is seen and told, nothing covers anything, and it leads everywhere."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from test_page import Balanced

from mtmm_lib.lesson import book, course_map
from mtmm_lib.lesson.book import Lesson, Planned
from mtmm_lib.lesson.course_map import BOX, Mark

# Part → title: numbers of the lessons that it needs.
BOOK = {
    "Before you begin": {"Warm-up": []},
    "Foundations": {
        "Everything is a mapping": [],
        "Concepts and connections": [1],
        "A fair comparison": [2],
        "The twelve steps": [1, 3],
    },
    "Sharing between tasks": {
        "Hard parameter sharing": [3],
        "Soft parameter sharing": [3],
        "Learned relations": [6],
        "Sharing features": [5, 6],
    },
    "Several losses, one update": {
        "Adding up losses": [3],
        "Compromises that no weights reach": [9],
        "When gradients disagree": [9],
        "Bargains between tasks": [10, 11],
    },
    "Several kinds of input": {
        "Three levels of fusion": [1],
        "What fusion can express": [13],
        "Missing modalities": [13],
        "Weak and dominant modalities": [9, 15],
    },
    "Attention": {
        "Attention as adaptive weighting": [8],
        "Attention between modalities": [14, 17],
        "What attention maps say": [18],
    },
    "Learning without labels": {
        "Adversarial training": [1, 5],
        "Self-supervision by alignment": [13, 20],
        "Self-supervision by reconstruction": [21],
    },
    "In the world": {
        "Vision and question answering": [4, 18],
        "Language": [4, 8],
        "Speech": [4, 15],
        "Health": [15, 19],
        "Driving": [15],
        "Scale and deploy": [12],
        "Limits and what comes next": [22, 28],
    },
}


def thirty() -> list[Planned]:
    """The book as designed, with needs made up, the last two lessons still planned."""
    made: list[Planned] = []
    for part, titles in BOOK.items():
        for title, numbers in titles.items():
            slug = title.lower().replace(" ", "-").replace(",", "")
            needs = tuple(made[number].slug for number in numbers)
            about = (part, title, "A line.", ())
            number = f"{len(made):02}"
            made.append(Lesson(slug, *about, number, (), needs, ()))
    for lesson in made[-2:]:
        planned = Planned(lesson.slug, lesson.part, lesson.title, "A line.", ())
        made[made.index(lesson)] = planned
    return made


BOOKS = {"today": list(book.course()), "thirty": thirty()}
FRAMES = [course_map._WIDE, course_map._TALL]
every_book = pytest.mark.parametrize("lessons", BOOKS.values(), ids=BOOKS)
every_frame = pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.name)


def address(lesson: Lesson) -> str:
    return f"here/{lesson.name}.html"


def test_what_needs_need_themselves_is_left_out() -> None:
    lessons = thirty()
    below = course_map.direct(lessons)
    slugs = [lesson.slug for lesson in lessons]
    assert below[slugs[4]] == (slugs[3],), "3 needs 2, which needs 1"
    assert below[slugs[12]] == (slugs[10], slugs[11])
    assert below[slugs[20]] == (slugs[5],)

    def reached(slug: str, of: dict[str, tuple[str, ...]]) -> set[str]:
        return set(of[slug]).union(*(reached(need, of) for need in of[slug]))

    whole = {each.slug: getattr(each, "needs", ()) for each in lessons}
    for slug in slugs:
        assert reached(slug, below) == reached(slug, whole)
        for need in below[slug]:
            fewer = {**below, slug: tuple(x for x in below[slug] if x != need)}
            assert need not in reached(slug, fewer), "no arrow is there for nothing"


@every_book
@every_frame
def test_there_is_a_line_for_each_direct_need(lessons, frame) -> None:
    made = course_map.plan(lessons, frame)
    assert set(made.lines) == {
        (need, slug)
        for slug, needs in course_map.direct(lessons).items()
        for need in needs
    }
    for (need, slug), way in made.lines.items():
        (x0, y0), (x1, y1) = made.boxes[need], made.boxes[slug]
        assert way[0][0] == x0 + frame.box and y0 < way[0][1] < y0 + BOX
        assert way[-1][0] == x1 and y1 < way[-1][1] < y1 + BOX
        assert way[-2][0] <= x1 - 12, "there is room for the arrow's head"
        for a, b in pairwise(way):
            assert (a[0] == b[0]) != (a[1] == b[1]), "lines run level or upright"


@every_book
@every_frame
def test_boxes_stand_in_their_parts_in_order_and_nothing_covers_them(
    lessons, frame
) -> None:
    made = course_map.plan(lessons, frame)
    order = [made.boxes[lesson.slug] for lesson in lessons]
    assert [(y, x) for x, y in order] == sorted((y, x) for x, y in order)
    for (x, y), (u, v) in combinations(order, 2):
        assert abs(x - u) >= frame.box or abs(y - v) >= BOX
    panels = dict(zip(dict.fromkeys(x.part for x in lessons), made.panels, strict=True))
    for lesson, (x, y) in zip(lessons, order, strict=True):
        top, height = panels[lesson.part]
        assert made.heads[lesson.part] + 25 <= y, "below the heading"
        assert top < y and y + BOX < top + height <= made.height
        assert 0 < x and x + frame.box < frame.width
    for way in made.lines.values():
        for (x0, y0), (x1, y1) in pairwise(way):
            left, right, top, bottom = (
                min(x0, x1),
                max(x0, x1),
                min(y0, y1),
                max(y0, y1),
            )
            assert 0 < left and right < frame.width and 0 < top and bottom < made.height
            for x, y in order:
                beside = right <= x or left >= x + frame.box
                assert beside or bottom < y or top > y + BOX, "no line behind a box"


@every_book
@every_frame
def test_lines_of_two_lessons_never_lie_on_one_another(lessons, frame) -> None:
    """They may cross, and they meet before the lesson that both lead to."""
    pieces = [
        (need, slug, *sorted(piece))
        for (need, slug), way in course_map.plan(lessons, frame).lines.items()
        for piece in pairwise(way)
    ]
    for (a, to, *one), (b, into, *other) in combinations(pieces, 2):
        if a == b or to == into:
            continue
        for along in (0, 1):
            across = 1 - along
            if len({point[across] for point in (*one, *other)}) == 1:
                start = max(one[0][along], other[0][along])
                assert start > min(one[1][along], other[1][along]), (a, to, b, into)


@every_book
def test_every_lesson_is_a_link_and_a_planned_one_is_none(lessons) -> None:
    shown = course_map.html(lessons, address)
    Balanced(shown)
    links = re.findall(r'href="([^"]+)"', shown)
    written = [lesson for lesson in lessons if isinstance(lesson, Lesson)]
    assert links == [address(lesson) for lesson in written]
    assert shown.count('<span class="box">') == len(lessons) - len(written)


@every_book
def test_it_is_told_in_words(lessons) -> None:
    """In the list behind the picture, and where there is no picture at all."""
    heard = re.sub(r"<em.*?</em>|<[^>]+>", "", course_map.html(lessons, address))
    below = course_map.direct(lessons)
    number = {each.slug: getattr(each, "number", "") for each in lessons}
    for lesson in lessons:
        words = f"{number[lesson.slug]} {lesson.title}".strip()
        if below[lesson.slug]:
            words += ", builds on "
            words += " and ".join(number[need] for need in below[lesson.slug])
        if not isinstance(lesson, Lesson):
            words += ", planned"
        assert words in heard and words in course_map.alt(lessons)
    parts = [line.split(":")[0] for line in course_map.alt(lessons).splitlines()]
    assert parts == list(dict.fromkeys(lesson.part for lesson in lessons))


def test_marks_are_seen_and_heard() -> None:
    lessons = thirty()
    marks = {lessons[4].slug: Mark("next", "→", "go on <here>")}
    shown = course_map.html(lessons, address, marks)
    assert shown.count("→ go on &lt;here&gt;</em>") == 1
    assert ", builds on 03, go on &lt;here&gt;</i>" in shown
    assert '<a class="box n4 next"' in shown
    assert "04 The twelve steps, builds on 03, go on <here>." in course_map.alt(
        lessons, marks
    )


def test_titles_are_escaped() -> None:
    lessons = [replace(lesson, title="A < B", part="C & D") for lesson in thirty()[:2]]
    shown = course_map.html(lessons, address)
    assert "A &lt; B" in shown and "C &amp; D" in shown and "A < B" not in shown


def test_both_pictures_are_well_formed_and_named() -> None:
    drawn = re.findall(r"<svg.*?</svg>", course_map.html(thirty(), address), re.DOTALL)
    assert len(drawn) == 2
    for each in map(ET.fromstring, drawn):
        assert each.get("role") == "img" and each.get("aria-label")
        assert len(each.findall("rect")) == len(BOOK)


@every_book
@pytest.mark.parametrize("width, picture", [(358, "tall"), (731, "wide")])
def test_a_page_shows_the_picture_that_fits(browser, lessons, width, picture) -> None:
    """No title leaves its box, no two boxes meet, and the keyboard walks through all of
    them in order and lights up their arrows."""
    tab = browser.new_page(viewport={"width": width, "height": 900})
    marks = {lessons[1].slug: Mark("next", "→", "go on here")}
    tab.set_content(
        '<!doctype html><meta name="viewport" content="width=device-width">'
        '<body style="margin:0;font-family:sans-serif">'
        + course_map.html(lessons, address, marks)
    )
    visible = tab.locator("svg:visible")
    assert visible.count() == 1 and picture in visible.get_attribute("class")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    outside = tab.locator(".box").evaluate_all("""boxes => boxes.filter(box => {
        const frame = box.getBoundingClientRect();
        const words = box.querySelector("span").getBoundingClientRect();
        return words.height > frame.height || words.right > frame.right;
    }).map(box => box.textContent)""")
    assert outside == []
    lines = course_map.plan(lessons, FRAMES[0]).lines
    for number, lesson in enumerate(lessons):
        if isinstance(lesson, Lesson):
            tab.keyboard.press("Tab")
            box = tab.locator("a:focus")
            assert box.get_attribute("href") == address(lesson)
            assert box.evaluate("box => getComputedStyle(box).outlineWidth") == "3px"
            bold = tab.locator("svg:visible g").evaluate_all("""lines => lines
                .filter(line => getComputedStyle(line).strokeWidth === "3px")
                .map(line => [...line.classList])""")
            assert len(bold) == sum(lesson.slug in ends for ends in lines)
            assert all(f"n{number}" in names for names in bold)
    tab.close()
