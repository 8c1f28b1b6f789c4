"""The executed lesson on a page without a kernel and without a network: explorers and
quiz in Chromium.

The page is made from the notebook's outputs as the site makes it: state and views of
the widgets as JSON, the widget manager's script, the rest as HTML. The script is the
one that the site serves.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

VIEW, STATE = (
    "application/vnd.jupyter.widget-view+json",
    "application/vnd.jupyter.widget-state+json",
)
MANAGER = sorted(
    Path(__file__)
    .parents[2]
    .glob("_build/vendor/@jupyter-widgets/html-manager@*/dist/embed.js")
)


def script(kind: str, content: object) -> str:
    text = json.dumps(content).replace("<", "\\u003c")
    return f'<script type="{kind}">{text}</script>'


@pytest.fixture(scope="module")
def page(browser, notebook, outputs) -> Iterator:
    if not MANAGER:
        pytest.skip(
            "the widget manager has not been fetched yet (make book fetches it)"
        )
    parts = [
        "<!doctype html><meta charset=utf-8><meta name=viewport "
        "content='width=device-width'><body>"
    ]
    for name, shown in outputs.items():
        for output in shown:
            data = output["data"]
            view = (
                f"<div>{script(VIEW, data[VIEW])}</div>"
                if VIEW in data
                else data["text/html"]
            )
            parts.append(f'<section id="{name.replace(" ", "-")}">{view}</section>')
    parts += [
        script(STATE, notebook["metadata"]["widgets"][STATE]),
        '<script src="/embed.js"></script>',
    ]
    served = {
        "http://lesson.test/": {"body": "\n".join(parts), "content_type": "text/html"},
        "http://lesson.test/embed.js": {
            "path": MANAGER[-1],
            "content_type": "text/javascript",
        },
    }
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.problems = []
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))

    def serve(route) -> None:
        if route.request.url in served:
            route.fulfill(**served[route.request.url])
        else:
            tab.problems.append(f"asked the network for {route.request.url}")
            route.abort()

    tab.route("**/*", serve)
    tab.goto("http://lesson.test/")
    tab.wait_for_selector("#explore-three img")
    tab.wait_for_selector("#quiz .MCButton")
    yield tab
    tab.close()


def alt(page, name: str) -> str:
    image = page.locator(f"#{name} img:visible")
    assert image.count() == 1
    return image.get_attribute("alt")


def test_one_slider_by_keyboard_and_by_mouse(page) -> None:
    handle = page.locator("#explore [role=slider]")
    assert alt(page, "explore") == "a 2"
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert alt(page, "explore") == "a 3"
    page.keyboard.press("Home")
    assert alt(page, "explore") == "a 1"
    handle.scroll_into_view_if_needed()
    start, track = (
        handle.bounding_box(),
        page.locator("#explore .slider-container").bounding_box(),
    )
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(
        track["x"] + track["width"] + 20, start["y"] + start["height"] / 2, steps=5
    )
    page.mouse.up()
    assert alt(page, "explore") == "a 3"
    assert page.locator("#explore .widget-label:visible").first.inner_text() == "first"


def test_two_sliders(page) -> None:
    first, second = page.locator("#explore-two [role=slider]").all()
    assert alt(page, "explore-two") == "a 1, b 4"
    second.press("ArrowRight")
    assert alt(page, "explore-two") == "a 1, b 5"
    first.press("End")
    assert alt(page, "explore-two") == "a 3, b 5"
    second.press("ArrowLeft")
    assert alt(page, "explore-two") == "a 3, b 4"


def test_two_sliders_and_buttons(page) -> None:
    first, second = page.locator("#explore-three [role=slider]").all()
    assert alt(page, "explore-three") == "a 1, b 5, c False"
    second.press("End")
    page.locator("#explore-three button", has_text="on").press("Enter")
    first.press("ArrowRight")
    assert alt(page, "explore-three") == "a 2, b 6, c True"
    second.press("Home")
    assert alt(page, "explore-three") == "a 2, b 4, c True"


def test_the_quiz_answers_every_choice(page) -> None:
    for question in page.locator("#quiz .Quiz").all():
        said = set()
        choices = question.locator(".MCButton").all()
        for choice in choices:
            choice.click()
            feedback = question.locator(".Feedback").inner_text()
            correct = choice.get_attribute("data-correct") == "true"
            assert ("correctButton" in choice.get_attribute("class").split()) == correct
            assert (
                "correct"
                in question.locator(".Feedback").get_attribute("class").split()
            ) == correct
            said.add(feedback)
        assert len(said) == len(choices)
        assert question.locator(".Feedback").get_attribute("aria-live") == "polite"
        label = question.locator("[role=radiogroup]").get_attribute("aria-labelledby")
        assert page.locator(f"#{label}").inner_text().strip()


def test_the_quiz_works_by_keyboard(page) -> None:
    question = page.locator("#quiz .Quiz").first
    question.locator("input").first.focus()
    page.keyboard.press("ArrowDown")
    assert question.locator(".correctButton, .incorrectButton").count() == 1
    assert (
        question.locator(".MCButton")
        .nth(1)
        .evaluate("label => label.matches(':focus-within')")
    )


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_overflows_errs_or_asks_the_network(page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "[...document.images].every(image => image.alt && image.naturalWidth)"
    )
    assert page.problems == []
