"""Explorers: each control leads to its frame, in Python by following the links, and in
the browser."""

import re
import sys
from itertools import product

import ipywidgets
import pytest
from matplotlib import pyplot as plt

from mtmm_lib.lesson import explore, explorer

GRIDS = [
    {"a": [1, 2, 3]},
    {"a": [1, 2, 3], "b": [0.25, 0.5]},
    {"a": [1, 2], "b": ["x", "y", "z"], "c": [False, True]},
]


def draw(**point):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.set_title(" ".join(map(str, point.values())))
    return fig


def describe(**point) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.items())


def shown(explorer) -> str:
    """The text alternative of the frame on top, found as the front end finds it."""
    top = explorer.children[-2]
    while isinstance(top, ipywidgets.Stack):
        top = top.children[top.selected_index]
    return re.search('alt="([^"]*)"', top.value)[1]


@pytest.mark.parametrize("grid", GRIDS)
def test_every_point_is_reached_by_its_links(grid, monkeypatch) -> None:
    links = []
    monkeypatch.setattr(
        ipywidgets, "jslink", lambda source, target: links.append((source, target))
    )
    widget = explore(draw, alt=describe, **grid)
    for indices in product(*(range(len(values)) for values in grid.values())):
        for control, index in zip(widget.children, indices, strict=False):
            control.index = index
        for (control, trait), (stack, selected) in links:
            setattr(stack, selected, getattr(control, trait))
        point = {
            name: values[index]
            for (name, values), index in zip(grid.items(), indices, strict=True)
        }
        assert shown(widget) == describe(**point) == repr(widget)
    assert plt.get_fignums() == []


def test_it_starts_in_the_middle_or_where_told() -> None:
    assert shown(explore(draw, alt=describe, a=[1, 2, 3], b=[1, 2, 3, 4])) == "a 2, b 2"
    widget = explore(
        draw, alt="{a:.2f} and {b}", start={"b": "z"}, a=[1, 2, 3], b=["x", "y", "z"]
    )
    assert shown(widget) == "2.00 and z"


def test_controls_fit_their_values() -> None:
    widget = explore(
        draw,
        alt=describe,
        labels={"a": "the first"},
        a=[0.1, 10],
        b=["x", "y"],
        c=[True, False],
    )
    mixed = explore(draw, alt=describe, a=[1, "all", None]).children[0]
    assert mixed._options_labels == ("1", "all", "None")
    slider, *buttons = widget.children[:3]
    assert isinstance(
        slider, ipywidgets.SelectionSlider
    ) and slider._options_labels == ("0.1", "10")
    assert slider.description == "the first"
    assert all(isinstance(control, ipywidgets.ToggleButtons) for control in buttons)
    assert [control._options_labels for control in buttons] == [
        ("x", "y"),
        ("on", "off"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got no parameter: 1 frames"),
        ({"a": [1], "b": [1], "c": [1], "d": [1]}, "1 to 3 parameters"),
        ({"a": range(61)}, r"got a \(61\): 61 frames"),
        ({"a": []}, "0 frames"),
        ({"a": [1, 2], "start": {"a": 3}}, r"a=3 is not one of \[1, 2\]"),
        ({"a": [1, 2], "start": {"b": 3}}, r"start names \['b'\]"),
        ({"a": [1, 2], "labels": {"b": "B"}}, r"labels names \['b'\]"),
    ],
)
def test_what_it_cannot_show_is_refused_before_anything_is_drawn(
    arguments, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        explore(None, alt="", **arguments)


def test_a_frame_that_is_too_large_is_refused() -> None:
    def noise(a):
        fig, ax = plt.subplots()
        ax.imshow(
            [[(i * i * j + a) % 251 for i in range(300)] for j in range(300)],
            cmap="prism",
        )
        return fig

    with pytest.raises(
        ValueError, match=r"the frame at \{'a': 1\} takes .* bytes, more than 25,000"
    ):
        explore(noise, alt="noise", a=[1])


def test_frames_are_small() -> None:
    def lines(a):
        fig, ax = plt.subplots()
        for i in range(4):
            ax.plot([(x - 9 * i) ** 2 + a for x in range(60)], label=f"line {i}")
        ax.legend()
        return fig

    (frame,) = explore(lines, alt="lines", a=[1]).children[-2].children
    assert len(frame.value) * 3 / 4 < explorer.MAX_BYTES + 1000


@pytest.mark.parametrize("grid", GRIDS)
def test_colab_gets_the_browsers_own_controls(grid, browser, monkeypatch) -> None:
    widget = explore(draw, alt=describe, **grid)
    assert "text/html" not in widget._repr_mimebundle_()
    monkeypatch.setitem(sys.modules, "google.colab", None)
    bundle = widget._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    tab = browser.new_page()
    tab.set_content(bundle["text/html"])
    assert tab.locator("img:visible").get_attribute("alt") == repr(widget)
    for point in product(*grid.values()):
        for name, value in zip(grid, point, strict=True):
            control = tab.get_by_label(name)
            at = str(grid[name].index(value))
            control.select_option(at) if control.evaluate(
                "c => c.tagName"
            ) == "SELECT" else control.fill(at)
        expected = describe(**dict(zip(grid, point, strict=True)))
        assert tab.locator("img:visible").get_attribute("alt") == expected
    tab.get_by_label("a", exact=False).first.press("Home")
    assert tab.locator("img:visible").get_attribute("alt").startswith("a 1")
    assert (
        tab.get_by_label("a", exact=False).first.get_attribute("aria-valuetext") == "1"
    )
    tab.close()


def test_without_widgets_stands_the_text_alternative(outputs) -> None:
    (output,) = outputs["explore two"]
    assert output["data"]["text/plain"] == "a 1, b 4"
    assert "application/vnd.jupyter.widget-view+json" in output["data"]
