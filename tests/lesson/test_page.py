"""What a lesson shows in a notebook: text alternatives, plain text, data, colours."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from mtmm_lib.lesson import page, records

DISPLAYED = (
    "start",
    "figure",
    "claim",
    "measured",
    "guess",
    "check",
    "quiz",
    "source",
    "footer",
)
VOID = {"img", "br", "input", "rect", "path", "circle", "polygon"}


class Balanced(HTMLParser):
    """Fails when a tag is not closed or closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", DISPLAYED)
def test_everything_shows_itself_once_as_html_and_as_plain_text(
    outputs, name: str
) -> None:
    (output,) = outputs[name]
    picture = {"image/png"} if name == "figure" else set()
    assert set(output["data"]) == {"text/html", "text/plain"} | picture
    Balanced(output["data"]["text/html"])
    assert "<" not in output["data"]["text/plain"] or name in (
        "claim",
        "measured",
        "guess",
        "source",
        "figure",
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "utf-8"])
def test_a_terminal_that_lacks_a_character_shows_the_rest(encoding: str) -> None:
    code = """
from mtmm_lib.lesson import page
page.show("<p>✓</p>", "✓ passed: −1 ≥ ŷ")
"""
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr.decode()
    shown = done.stdout.decode(encoding).strip()
    if encoding == "utf-8":
        assert shown == "✓ passed: −1 ≥ ŷ"
    else:
        assert shown.startswith("+ passed: -1 ")


def test_what_the_author_writes_is_escaped(outputs) -> None:
    (claimed,) = outputs["claim"]
    assert "Two is <b>more</b> than one" in Balanced(claimed["data"]["text/html"]).text
    assert "Two is <b>more</b> than one" in claimed["data"]["text/plain"]
    (shown,) = outputs["figure"]
    parsed = Balanced(shown["data"]["text/html"])
    assert [image["alt"] for image in parsed.images] == ["A line <up> & down"]
    assert "Up & down." in parsed.text


def test_the_data_is_read_from_the_executed_notebook(notebook) -> None:
    assert [record["kind"] for record in records(notebook)] == [
        "start",
        "claim",
        "claim",  # the two findings of one box
        "claim",
        "guess",
        "footer",
    ]
    claim, first, second = records(notebook, "claim")
    assert (first["supports"], second["supports"]) == ("A1", None)
    assert first["statement"] == "Two of `two` exceeds one by 2 points"
    assert (claim["chapter"], claim["seed"], claim["supports"], claim["verdict"]) == (
        "missing-weak-and-dominant-modalities",
        3,
        "A1",
        "refuted",
    )
    assert (
        claim["result"]["value"] == 2
        and claim["result"]["low"] == 1
        and claim["result"]["holds"]
    )
    assert claim["statement"] == "Two is <b>more</b> than one"
    (footer,) = records(notebook, "footer")
    assert (
        footer["chapter"] == "missing-weak-and-dominant-modalities"
        and footer["seed"] == 3
        and footer["seconds"] > 0
    )
    assert set(footer["versions"]) == {"Python", "torch", "numpy", "mtmm_lib"}


def colours(variables: str) -> dict[str, tuple[int, ...]]:
    found = re.findall(r"--mtmm-(\w+):#(\w{6})", variables)
    return {
        name: tuple(int(code[i : i + 2], 16) for i in (0, 2, 4)) for name, code in found
    }


def luminance(colour: tuple[int, ...]) -> float:
    parts = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (v / 255 for v in colour)
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize(
    ("variables", "background"),
    [(page.LIGHT, (255, 255, 255)), (page.DARK, (18, 18, 18))],
)
def test_text_is_readable_on_light_and_dark_pages(
    variables: str, background: tuple[int, ...]
) -> None:
    """A contrast of 4.5 for text and of 3 for drawings (WCAG 2.1, AA)."""
    palette = colours(variables)
    assert set(palette) == set(colours(page.LIGHT))

    def contrast(name: str, on: tuple[int, ...]) -> float:
        high, low = sorted((luminance(palette[name]), luminance(on)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for paper in (background, palette["paper"]):
        for name in ("ink", "soft", "good", "bad", "open", "accent"):
            assert contrast(name, paper) >= 4.5, name
        for name in ("blue", "green", "purple"):
            assert contrast(name, paper) >= 3, name
    assert contrast("accent", palette["glow"]) >= 4.5
