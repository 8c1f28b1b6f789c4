"""Drawn architectures: both pictures tell the description, nothing lies on anything
else, and what cannot be drawn is named."""

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import combinations

import pytest

from mtmm_lib.lesson import Flow, Part, diagram, page
from mtmm_lib.lesson.diagram import Drawing
from mtmm_lib.lesson.drawing import hatching
from mtmm_lib.lesson.layout import LIMIT, Layout
from mtmm_lib.lesson.parts import Description
from mtmm_lib.lesson.shapes import fraction

SVG = "{http://www.w3.org/2000/svg}"
TASKS = ("digit", "rate")
EXPERTS = ["expert 1", "expert 2", "expert 3"]
WEIGHTS = {"digit": [0.7, 0.2, 0.1], "rate": [0.1, 0.3, 0.6]}


def hard_sharing() -> Description:
    parts = [
        Part("input", (0, 0.5), of="sound", symbol="x", note="192 numbers"),
        Part("box", (1, 0.5), "trunk", of=TASKS, state="new"),
        *[Part("head", (2, i), of=task) for i, task in enumerate(TASKS)],
        *[Part("prediction", (3, i), of=task) for i, task in enumerate(TASKS)],
        *[Part("loss", (4, i), of=task) for i, task in enumerate(TASKS)],
    ]
    flows = [
        Flow("sound", "trunk", ["digit's head", "rate's head"]),
        Flow("digit's head", "digit's prediction", "digit's loss"),
        Flow("rate's head", "rate's prediction", "rate's loss"),
        Flow("digit's loss", "trunk", way="gradient", of="digit", symbol="g_1"),
        Flow("rate's loss", "trunk", way="gradient", of="rate", symbol="g_2"),
    ]
    return Description(parts, flows, TASKS)


def mixture() -> Description:
    parts = [
        Part("tokens", (0, 2), "representation", symbol="z"),
        *[Part("box", (1, i), name) for i, name in enumerate(EXPERTS, 1)],
    ]
    flows = [Flow("representation", ["digit's gate", *EXPERTS, "rate's gate"])]
    for task, outer, inner in (("digit", 0, 1), ("rate", 4, 3)):
        weights = WEIGHTS[task]
        parts += [
            Part("gate", (1, outer), of=task, weights=weights),
            Part("node", (2, inner), f"{task}'s sum", of=task, symbol="Σ"),
            Part("feature", (3, inner), of=task),
            Part("head", (4, inner), of=task),
        ]
        flows += [
            Flow(EXPERTS, f"{task}'s sum", of=task, weights=weights),
            Flow(f"{task}'s gate", f"{task}'s sum", way="steering", of=task),
            Flow(f"{task}'s sum", f"{task}'s feature", f"{task}'s head"),
        ]
    return Description(parts, flows, TASKS)


def everything() -> Description:
    """What the other two do not have: all modalities, states and ways."""
    parts = [
        Part("input", (0, 0), of="picture"),
        Part("input", (0, 1), of="sound", state="absent"),
        Part("input", (0, 2), of="text"),
        Part("encoder", (1, 0), of="picture", state="frozen"),
        Part("encoder", (1, 1), of="sound"),
        Part("encoder", (1, 2), of="text"),
        Part("fusion", (2, 1)),
        Part("box", (3, 1), "trunk", of=TASKS, note="two layers"),
        Part("table", (4, 1), "stitch", weights=[[0.9, 0.1], [0, 1]], symbol="α"),
        Part("head", (5, 0), of="digit"),
        Part("head", (5, 2), of="rate"),
        Part("node", (6, 1), "sum", symbol="+", note="of losses"),
    ]
    flows = [
        Flow("picture", "picture's encoder", "fusion"),
        Flow("sound", "sound's encoder", "fusion"),
        Flow("text", "text's encoder", "fusion", stop=True),
        Flow("digit's head", "rate's head", way="tether", symbol="λ"),
        Flow("fusion", "trunk", "stitch", ["digit's head", "rate's head"]),
        Flow("fusion", "sum", lane=2.8),
        Flow("digit's head", "sum"),
        Flow("rate's head", "sum", factor="−λ"),
    ]
    return Description(parts, flows, TASKS)


def slowed() -> Description:
    """A loss between its targets: one gradient on either side; and what steers."""
    parts = [
        Part("input", (0, 0), of="picture"),
        Part("input", (0, 1), of="sound"),
        Part("encoder", (1, 0), of="picture"),
        Part("encoder", (1, 1), of="sound"),
        Part("node", (2, 0.5), "sum", symbol="+"),
        Part("loss", (3, 0.5), of="digit"),
        Part("box", (0, 2), "task", symbol="e_t"),
    ]
    flows = [
        Flow("picture", "picture's encoder", "sum"),
        Flow("sound", "sound's encoder", "sum", "digit's loss"),
        Flow("digit's loss", "picture's encoder", way="gradient", factor="k_1"),
        Flow("digit's loss", "sound's encoder", way="gradient", factor="k_2"),
        Flow("task", "sum", way="steering", symbol="γ_t"),
        Flow("digit's loss", "task"),
    ]
    return Description(parts, flows, TASKS)


ALL = [hard_sharing, mixture, everything, slowed]
both = pytest.mark.parametrize("tall", [False, True])
each = pytest.mark.parametrize("describe", ALL)


def boxes(layout: Layout) -> Iterator[tuple[str, tuple[float, ...]]]:
    for name in layout.shapes:
        yield name, layout.box(name)
    yield from layout.words


def svgs(of: Description) -> list[ET.Element]:
    return [ET.fromstring(Drawing(of).svg(tall=tall)) for tall in (False, True)]


def words(element: ET.Element) -> list[str]:
    return sorted(
        word
        for text in element.iter(f"{SVG}text")
        for word in "".join(text.itertext()).split()
    )


@each
def test_both_pictures_and_the_reader_are_told_the_same(describe) -> None:
    wide, tall = svgs(describe())
    assert words(wide) == words(tall)
    told = Drawing(describe()).words
    for name in describe().named:
        assert name in told
    for picture in (wide, tall):
        assert picture.get("role") == "img" and picture.get("aria-label") == told


@each
@both
def test_nothing_lies_on_anything_else(describe, tall: bool) -> None:
    """Measured anew, on boxes and on points of the arrows."""
    layout = Layout(describe(), tall)
    for (name, a), (other, b) in combinations(boxes(layout), 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert name == other or apart, (name, other)
    for route in layout.routes:
        for name in set(layout.shapes) - {route.arrow.source, route.arrow.target}:
            left, top, right, bottom = layout.box(name)
            for point in route.points:
                x, y = layout.axes.at(*point)
                assert not (left < x < right and top < y < bottom), (route.arrow, name)


@each
@both
def test_everything_lies_in_the_frame(describe, tall: bool) -> None:
    layout = Layout(describe(), tall)
    (x0, y0), (width, height) = layout.origin, layout.size
    assert width <= LIMIT[tall]
    for name, (left, top, right, bottom) in boxes(layout):
        assert x0 <= left < right <= x0 + width, name
        assert y0 <= top < bottom <= y0 + height, name


@each
@both
def test_arrows_end_where_their_parts_are(describe, tall: bool) -> None:
    layout = Layout(describe(), tall)
    for route in layout.routes:
        ends = (route.curves[0][0], route.tip)
        for name, (u, v) in zip(
            (route.arrow.source, route.arrow.target), ends, strict=True
        ):
            x, y = layout.axes.at(u, v)
            left, top, right, bottom = layout.box(name, layout.shapes[name].reach)
            assert left - 6 <= x <= right + 6 and top - 6 <= y <= bottom + 6


def test_the_flow_is_told_in_sentences() -> None:
    told = Drawing(hard_sharing()).words
    assert told == (
        "The sound x (192 numbers) enters the trunk (shared by the digit and the rate; "
        "highlighted), whose output enters the digit’s head and the rate’s head. "
        "The digit’s head gives the digit’s prediction ŷ1, which enters the digit’s "
        "loss ℓ1. The rate’s head gives the rate’s prediction ŷ2, which enters the "
        "rate’s loss ℓ2. The gradient g1 of the digit’s loss flows back to the trunk. "
        "The gradient g2 of the rate’s loss flows back to the trunk."
    )
    told = Drawing(mixture()).words
    assert "rate’s gate (weights 0.1, 0.3 and 0.6)" in told
    assert (
        "The outputs of expert 1, expert 2 and expert 3 enter the digit’s sum with the "
        "weights 0.7, 0.2 and 0.1. The digit’s gate steers the digit’s sum." in told
    )
    told = Drawing(slowed()).words
    assert "flows back to the picture’s encoder, multiplied by k1." in told
    assert "The task (et) steers the sum with γt." in told
    told = Drawing(everything()).words
    for clause in (
        "The sound (absent) enters the sound’s encoder",
        "the picture’s encoder (frozen)",
        "no gradient flows back on this way.",
        "A tether λ holds the digit’s head and the rate’s head together.",
        "on the way back the gradient is multiplied by −λ.",
        "(α; weights by row: 0.9 and 0.1; 0 and 1)",
    ):
        assert clause in told


def test_what_no_arrow_reaches_is_told_too() -> None:
    parts = [Part("box", (0, 0), "store"), Part("box", (1, 0), "clock")]
    assert (
        Drawing(Description(parts, [])).words == "Beside them: the store and the clock."
    )


@both
def test_width_is_weight(tall: bool) -> None:
    picture = ET.fromstring(Drawing(mixture()).svg(tall=tall))
    widths = {
        task: sorted(
            float(path.get("style").split(":")[1])
            for path in picture.iter(f"{SVG}path")
            if path.get("style") and path.get("class") == f"a t{i}s"
        )
        for i, task in enumerate(TASKS)
    }
    assert widths == {
        task: pytest.approx(sorted(1 + 9 * w for w in WEIGHTS[task])) for task in TASKS
    }


def test_an_arrow_keeps_to_the_lane_it_is_given() -> None:
    layout = Layout(everything(), tall=False)
    route = next(r for r in layout.routes if r.arrow.flow.lane)
    assert max(v for _, v in route.points) == pytest.approx(2.8 * layout.pitch)


@both
def test_a_gradient_takes_the_side_that_is_free(tall: bool) -> None:
    layout = Layout(slowed(), tall)
    sides = {
        route.arrow.target: min(v for _, v in route.points)
        < layout.middle("picture")[1]
        for route in layout.routes
        if route.arrow.flow.way == "gradient"
    }
    assert sides == {"picture’s encoder": True, "sound’s encoder": False}


def test_hatching_stays_inside() -> None:
    corners = [(0.0, 0.0), (60.0, 10.0), (60.0, 30.0), (0.0, 40.0)]
    path = ET.fromstring(hatching(corners)).get("d")
    points = [p.split() for line in path.split("M")[1:] for p in line.split("L")]
    assert len(points) > 10
    for x, y in points:
        slope = float(x) / 6
        assert 0 <= float(x) <= 60 and slope <= float(y) + 1e-3 <= 40 - slope + 2e-3


@pytest.mark.parametrize(
    ("weight", "short"), [(0.7, ".7"), (0, "0"), (1, "1"), (0.25, ".25"), (0.05, ".05")]
)
def test_weights_are_short(weight: float, short: str) -> None:
    assert fraction(weight) == short


A, B = Part("box", (0, 0), "a"), Part("box", (1, 0), "b")


@pytest.mark.parametrize(
    ("parts", "flows", "said"),
    [
        ([A, B], [Flow("a", "c")], "a → c has the part “c”; there are: a, b"),
        ([A, B], [Flow("a")], "the flow a has one end"),
        ([A, B], [Flow("a", "a")], "from “a” to itself"),
        ([A, B], [Flow("a", "b", weights=[1, 2])], "2 weights for 1 arrows"),
        ([A, B], [Flow("a", "b", way="sideways")], "way “sideways”"),
        ([A, B], [Flow("a", "b", of="c")], "of=“c”, which is neither a task"),
        ([A, Part("box", (1, 0), "a")], [], "2 parts are called “a”"),
        ([A, Part("box", (0, 0), "b")], [], r"2 parts stand at \(0, 0\)"),
        ([Part("bok", (0, 0), "a")], [], "“a” has the kind “bok”"),
        ([Part("box", (0, 0), "a", state="old")], [], "state “old”"),
        ([Part("box", (0, 0), "a", of="rat")], [], "digit, rate"),
        ([Part("input", (0, 0), "a")], [], "give it of= one of picture, sound, text"),
        ([Part("encoder", (0, 0), "a")], [], "modality"),
        ([Part("node", (0, 0), "a")], [], "symbol="),
        ([Part("table", (0, 0), "a")], [], "rows of numbers"),
        ([Part("table", (0, 0), "a", weights=[[1], [1, 2]])], [], "rows of numbers"),
    ],
)
def test_what_is_wrong_is_named(parts, flows, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Description(parts, flows, TASKS)


def test_a_fourth_task_has_no_colour() -> None:
    with pytest.raises(ValueError, match="4 tasks, of which 3"):
        Description([A], [], ["p", "q", "r", "s"])


def test_what_cannot_be_drawn_is_named() -> None:
    three = [A, B, Part("box", (2, 0), "c")]
    with pytest.raises(ValueError, match="“a” → “c” runs through “b”: lead it round"):
        Layout(Description(three, [Flow("a", "c")]), tall=False)
    Layout(Description(three, [Flow("a", "c", lane=1)]), tall=False)
    many = [Part("box", (0, i), f"part{i}") for i in range(9)]
    with pytest.raises(ValueError, match="tall picture takes .* fewer lanes"):
        Layout(Description(many, []), tall=True)
    Layout(Description(many, []), tall=False)
    beside = [A, Part("box", (0.5, 1), "c"), B]
    signed = Flow("a", "b", symbol="a long sign")
    with pytest.raises(ValueError, match="“c” and .*“a” → “b”.* lie on each other"):
        Layout(Description(beside, [signed]), tall=True)
    Layout(Description(beside[::2], [signed]), tall=True)


def test_the_example_of_the_guide_runs(capsys) -> None:
    guide = sys.modules["mtmm_lib.lesson.diagram"].__doc__
    code = [line[4:] for line in guide.splitlines() if line[:4] == "    "]
    exec("\n".join(code), {})
    assert "flows back to the trunk" in capsys.readouterr().out


def test_it_is_shown_as_a_figure(monkeypatch, capsys) -> None:
    of = hard_sharing()
    diagram("One trunk & two.", parts=of.parts, flows=of.flows, tasks=of.tasks)
    assert capsys.readouterr().out == f"One trunk & two.\n{Drawing(of).words}\n"
    shown = []
    monkeypatch.setattr(page, "show", lambda html, *args, **kwargs: shown.append(html))
    diagram("One trunk & two.", parts=of.parts, flows=of.flows, tasks=of.tasks)
    assert "One trunk &amp; two.</figcaption></figure>" in shown[0]


def test_the_page_shows_the_picture_that_fits(browser) -> None:
    """Words are as wide as was reckoned, or less, and never too small to read."""
    tab = browser.new_page()
    for describe in ALL:
        html = page.wrap(Drawing(describe()).html, "mtmm-drawn")
        for width, shown in ((390, "tall"), (1000, "wide")):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.set_content(
                '<meta name="viewport" content="width=device-width">' + html
            )
            visible = tab.locator("svg:visible")
            assert visible.count() == 1 and shown in visible.get_attribute("class")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            found = visible.evaluate("""svg => {
                const scale = svg.getBoundingClientRect().width
                    / svg.viewBox.baseVal.width;
                return [...svg.querySelectorAll("text")].map(text => [
                    text.textContent, text.getBBox().width,
                    scale * parseFloat(getComputedStyle(text).fontSize)]);
            }""")
            layout = Layout(describe(), shown == "tall")
            reckoned = {
                label.line.words: label.line.width
                for shape in layout.shapes.values()
                for label in shape.labels
                if not label.line.symbol
            }
            measured = {text: w for text, w, _ in found if text in reckoned}
            assert measured.keys() == reckoned.keys()
            for text, w in measured.items():
                assert w <= reckoned[text] + 1, text
            assert all(size >= 13 for _, _, size in found), found
    tab.close()
