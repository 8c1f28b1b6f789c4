"""Live runs: what is pressed happens, in words and curves; random numbers are the run's
own; whatever a lesson's code does ends well."""

import asyncio
import importlib
import json
import math
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import pytest
import torch

from mtmm_lib.lesson import page, play, runs

module = importlib.import_module("mtmm_lib.lesson.play")  # the function has its name


def falling(rate, steps=5):
    """A curve that any test can compute: 1, 1 − rate, (1 − rate)², …"""
    for step in range(steps):
        yield (step + 1) / steps, (1 - rate) ** step


@pytest.fixture
def reader(monkeypatch) -> None:
    monkeypatch.setattr(page, "attended", lambda: True)


def started(run=falling, alt="It ends at {last:.2f}.", **controls):
    return play(run, alt=alt, **(controls or {"rate": (0.0, 1.0)}))


def test_where_nobody_sits_there_the_first_run_is_recorded() -> None:
    player = started(rate=(0.0, 1.0), steps=(1, 9))
    (run,) = player.runs
    assert run.values == {"rate": 0.5, "steps": 5} and run.end == runs.DONE
    assert run.curves == {"loss": [1.0, 0.5, 0.25, 0.125, 0.0625]} and run.share == 1
    shown = player._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain", "image/png"}
    assert "Run 1, rate = 0.5, steps = 5: It ends at 0.06. (loss 0.0625 at step 5" in (
        repr(player)
    )
    assert module.RECORDED in shown["text/html"]
    assert not re.search("<(button|input)", shown["text/html"])


def test_where_nobody_sits_there_an_error_is_the_cells() -> None:
    def broken(rate):
        yield 0.5, 1.0
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        started(broken)
    with pytest.raises(KeyError, match="lost"):
        started(alt="It ends at {lost}.")


def test_a_reader_begins_with_nothing_and_runs_what_was_chosen(reader) -> None:
    player = started()
    assert player.runs == [] and not player.going
    for rate in (0.1, 0.2, 0.3, 0.4, 0.5):
        player.values["rate"] = rate
        player.press(wait=True)
    assert [run.number for run in player.runs] == [2, 3, 4, 5]
    assert [run.values["rate"] for run in player.runs] == [0.2, 0.3, 0.4, 0.5]
    assert len({run.colour for run in player.runs}) == 4
    for run in player.runs:
        assert f"<b>Run {run.number}</b>" in player.words()
        assert f"Run {run.number}, rate = {run.values['rate']}" in player.picture()
    player.forget()
    assert player.runs == [] and "No run yet" in player.picture()


def test_stop_is_heard_after_the_step(reader) -> None:
    def endless(rate):
        step = 0
        while True:
            step += 1
            if step == 7:
                player.stop()
            yield 0.25, step

    player = started(endless)
    player.press(wait=True)
    assert player.runs[0].length == 7 and player.runs[0].end == runs.STOPPED
    assert "stopped at step 7. It ends at 7.00." in player.said()
    assert 'value="0.250"' in player.state()


def test_a_run_takes_turns_and_one_goes_on_at_a_time(reader) -> None:
    player = started()
    player.press()
    player.press()
    player.forget()
    (run,) = player.runs
    assert player.going and run.length == 0 and "going on" in player.said()
    for length in range(1, 6):
        player.advance(seconds=0)
        assert run.length == length
    player.advance(seconds=0)
    assert not player.going
    assert run.curves["loss"] == [1.0, 0.5, 0.25, 0.125, 0.0625]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_run_that_leaves_the_numbers_ends_there(reader, value) -> None:
    def diverging(rate):
        for step in range(9):
            yield step / 9, value if step == 3 else 10.0**step

    player = started(diverging)
    player.press(wait=True)
    assert player.runs[0].end == runs.DIVERGED and player.runs[0].length == 4
    assert "diverged at step 4" in player.words()
    (axes,) = runs.draw(player.runs, "step", "loss").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1.0, 10.0, 100.0]]


def test_an_error_is_told_in_words_and_it_can_be_run_again(reader) -> None:
    def picky(rate):
        yield 0.1, rate
        if rate < 0.7:
            raise ValueError("too <small>")
        yield 1, rate

    player = started(picky)
    player.press(wait=True)
    words = player.words()
    assert "ended by ValueError: too &lt;small&gt;" in words
    assert "line" in words and "in picky" in words and "runs.py" not in words
    player.values["rate"] = 0.8
    player.press(wait=True)
    assert player.runs[-1].end == runs.DONE and "It ends at 0.80." in player.words()


@pytest.mark.parametrize(
    ("yielded", "message"),
    [
        ([0.5], "a run yields (share done, value)"),
        ([(0.5, 1, 2)], "it yielded (0.5, 1, 2)"),
        ([(0.5, "much")], "could not convert string to float"),
        ([], "the run has ended without a value"),
    ],
)
def test_what_is_no_run_is_told(reader, yielded, message) -> None:
    player = started(lambda rate: iter(yielded))
    player.press(wait=True)
    assert player.runs[0].end == runs.FAILED and message in player.runs[0].said


def test_several_curves_go_by_their_names(reader) -> None:
    def two(rate):
        for step in range(3):
            yield step / 2, {"train": torch.tensor(1.0 / (step + 1)), "test": step}

    player = started(two, alt="train {train:.2f}, test {test:g}")
    player.press(wait=True)
    assert "train 0.33, test 2" in player.said()
    (axes,) = runs.draw(player.runs, "step", "loss").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "train",
        "test",
    ]
    styles = {line.get_linestyle() for line in axes.lines}
    assert len(axes.lines) == len(styles) == 2


def test_alt_may_be_a_function(reader) -> None:
    player = started(alt=lambda values, last: f"{values['rate']:g} gives {last:g}")
    player.press(wait=True)
    assert "0.5 gives 0.0625" in player.said()


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([3.0, 2.0, 1.0], "linear"),
        ([1.0, 0.1, 1e-4], "log"),
        ([1.0, 1e30], "log"),
        ([0.0, 0.001, 0.9, 1.0], "linear"),
        ([-1.0, 1.0, -2.0, 2.0, 1e12], "symlog"),
        ([0.0, 0.0], "linear"),
    ],
)
def test_the_axis_shows_small_values_beside_large_ones(reader, values, scale) -> None:
    player = started(lambda rate: iter([(0.5, value) for value in values]))
    player.press(wait=True)
    (axes,) = runs.draw(player.runs, "step", "loss").axes
    assert axes.get_yscale() == scale


def drawn() -> list[float]:
    return [random.random(), np.random.rand(), torch.rand(()).item()]


def noisy(rate):
    torch.nn.Linear(2, 2)
    for step in range(4):
        with torch.no_grad():
            yield (
                step / 4,
                sum(drawn()) + torch.nn.functional.dropout(torch.ones(50)).sum().item(),
            )


def test_random_numbers_are_the_runs_own(reader) -> None:
    """Whatever is drawn between its steps, and whatever the run draws."""
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    alone = [drawn() for _ in range(9)]
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    first, second = started(noisy), started(noisy)
    among = [drawn()]
    first.press(wait=True)
    among.append(drawn())
    second.press()
    while second.going:
        second.advance(seconds=0)
        among.append(drawn())
        assert torch.is_grad_enabled()
    first.press(wait=True)
    assert among == alone[: len(among)]
    curves = [run.curves for run in (*first.runs, *second.runs)]
    assert curves[0] == curves[1] == curves[2]


def test_the_books_seed_reaches_a_run(reader, monkeypatch) -> None:
    curves = []
    for number in ("0", "1", "0"):
        monkeypatch.setenv("MTMM_SEED", number)
        player = started(noisy)
        player.press(wait=True)
        curves.append(player.runs[0].curves["loss"])
    assert curves[0] == curves[2] != curves[1]


CONTROLS = {
    "rate": (0.01, 1.0, "log"),
    "share": (0.0, 1.0),
    "width": (4, 256),
    "kind": ["plain", "other", 3],
    "on": True,
}


def free(rate, share, width, kind, on):
    yield 1, rate


def test_controls_start_in_the_middle_or_where_told(reader) -> None:
    player = started(free, **CONTROLS)
    middle = {"rate": 0.1, "share": 0.5, "width": 130, "kind": "other", "on": True}
    assert player.values == middle
    start = {"rate": 0.033, "width": 7, "kind": 3, "on": False}
    player = play(free, alt="", start=start, labels={"rate": "speed"}, **CONTROLS)
    assert player.values == middle | start
    player.press()
    assert player.runs[0].settings == (
        "speed = 0.033, share = 0.5, width = 7, kind = 3, on = off"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "play needs a control"),
        ({"rate": 3}, "rate=3 is no control"),
        ({"rate": []}, r"rate=\[\] is no control"),
        ({"rate": (1, 2, "lin")}, "is no control"),
        ({"rate": (2.0, 1.0)}, "is no control"),
        ({"rate": ("a", "b")}, "is no control"),
        ({"rate": (0.0, 1.0, "log")}, "begins above 0"),
        ({"rate": (0.0, 1.0), "start": {"rate": 2}}, "rate=2 is not between 0.0 and 1"),
        ({"rate": ["a"], "start": {"rate": "b"}}, r"rate='b' is not one of \['a'\]"),
        ({"rate": (0.0, 1.0), "start": {"r": 1}}, r"start names \['r'\]"),
        ({"rate": (0.0, 1.0), "labels": {"r": ""}}, r"labels names \['r'\]"),
    ],
)
def test_what_it_cannot_show_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        play(falling, alt="", **arguments)


def test_a_run_that_does_not_take_the_controls_is_refused() -> None:
    with pytest.raises(TypeError, match="rat"):
        play(falling, alt="", rat=(0.0, 1.0))


def widgets(player):
    """The kernel's side of what a reader sees, by class or description."""
    found = {}
    todo = [player._board.box]
    while todo:
        widget = todo.pop()
        todo += getattr(widget, "children", ())
        for name in (*widget._dom_classes, getattr(widget, "description", "")):
            found.setdefault(name, []).append(widget)
    return found


def test_widgets_press_type_slide_and_stop(reader) -> None:
    async def kernel() -> None:
        player = play(free_for_long, alt="{last:g}", **CONTROLS)
        bundle = player._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        found = widgets(player)
        field, slider = found["mtmm-number"][-1].children
        field.value = 0.12345
        assert player.values["rate"] == 0.12345
        slider.value = 10 ** round(math.log10(0.12345), 2)  # to the next step
        assert player.values["rate"] == 0.12345
        slider.value = 0.56789
        assert player.values["rate"] == field.value == 0.568
        found["kind"][0].value, found["on"][0].value = 3, False
        found["Run"][0].click()
        while not player.runs or player.runs[0].length < 3:
            await asyncio.sleep(0)  # the kernel's other work
        assert "mtmm-off" in found["Run"][0]._dom_classes
        assert "going on" in found["mtmm-said"][0].value
        found["Stop"][0].click()
        while player.going:
            await asyncio.sleep(0)
        await player._board._task
        assert player.runs[0].end == runs.STOPPED
        assert "stopped at step" in found["mtmm-words"][0].value
        assert "Run 1" in found["mtmm-picture"][0].value
        assert player.runs[0].values == {
            "rate": 0.568,
            "share": 0.5,
            "width": 130,
            "kind": 3,
            "on": False,
        }
        found["Forget runs"][0].click()
        await asyncio.sleep(0)
        assert player.runs == [] and "Run 1" not in found["mtmm-words"][0].value

    def free_for_long(rate, share, width, kind, on):
        while True:
            yield 0.5, rate

    # in a thread: a browser that an earlier test opened has a loop running in this one
    with ThreadPoolExecutor() as elsewhere:
        elsewhere.submit(asyncio.run, kernel()).result()


def test_colab_gets_the_browsers_own_controls(reader, browser, monkeypatch) -> None:
    """With a stand-in for Colab, whose page asks the kernel by a callback's name."""
    colab, output = ModuleType("google.colab"), ModuleType("google.colab.output")
    callbacks = {}
    output.register_callback = callbacks.__setitem__
    colab.output = output
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    stopped = []

    def free_for_long(rate, share, width, kind, on):
        for step in range(10**9 if rate > 0.5 else 5):
            yield 0.5, rate / (step + 1)
        stopped.append(rate)

    monkeypatch.setattr(module, "PAUSE", 0.01)
    player = play(free_for_long, alt="{last:g}", **CONTROLS)
    html = player._repr_mimebundle_()["text/html"]
    (name,) = callbacks
    tab = browser.new_page()
    tab.expose_function(
        "answer", lambda *a: {"data": {"application/json": callbacks[a[0]](*a[1]).data}}
    )
    tab.set_content(html)
    tab.get_by_role("button", name="Run", exact=True).click()
    tab.get_by_text("Run this cell first.").wait_for()
    tab.evaluate(
        "google = {colab: {kernel: {accessAllowed: true, invokeFunction: answer}}}"
    )
    tab.set_content(html)
    tab.get_by_label("rate").fill("0.9")
    tab.get_by_label("other").press("ArrowRight")
    tab.get_by_label("on", exact=True).uncheck()
    tab.get_by_role("button", name="Run", exact=True).click()
    tab.get_by_alt_text("Run 1, rate = 0.9").wait_for()
    tab.get_by_role("button", name="Stop").click()
    tab.get_by_text("stopped at step").first.wait_for()
    assert player.runs[0].values == {
        "rate": 0.9,
        "share": 0.5,
        "width": 130,
        "kind": 3,
        "on": False,
    }
    tab.get_by_label("rate").fill("7")
    tab.get_by_label("rate").blur()
    assert tab.get_by_label("rate").input_value() == "1"
    tab.locator("[type=range]").first.evaluate(
        "e => { e.value = -1; e.dispatchEvent(new Event('input')); }"
    )
    assert tab.get_by_label("rate").input_value() == "0.1"
    tab.get_by_role("button", name="Run", exact=True).click()
    tab.get_by_text("0.02 (loss 0.02 at step 5").first.wait_for()
    assert tab.get_by_role("status").inner_text().startswith("Run 2: 0.02")
    assert stopped == [0.1] and tab.locator("img").count() == 1
    tab.get_by_role("button", name="Forget runs").click()
    tab.get_by_alt_text("No run yet").wait_for()
    tab.close()
    assert json.dumps(player.values)
