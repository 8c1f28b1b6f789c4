"""Draw the book's one picture as files, for what cannot run the lessons' code: the
README, and previews of links to the site."""

from __future__ import annotations

import hashlib
import io
import sys

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mtmm_lib.lesson import strip
from tools import browser
from tools.project import ROOT

STRIP = ROOT / "_static" / "strip.svg"
PREVIEW = ROOT / "_static" / "preview.png"
CARD = """\
<body style="margin: 0; width: 1200px; height: 630px; box-sizing: border-box;
  padding: 56px 60px; background: #fff; color: #1b2733; font-family: sans-serif">
<div style="font-size: 68px; font-weight: 700">Everything Is a Mapping</div>
<div style="font-size: 32px; margin: 12px 0 20px">Multi-task and multi-modal deep
learning, a book that you run</div>
{strip}</body>
"""


def digest() -> str:
    """Of what the preview is drawn from, which stands in its file, as pixels depend on
    the machine's type."""
    return hashlib.sha256((CARD + strip.standalone()).encode()).hexdigest()


def preview() -> bytes:
    """The book's name above its picture, as previews of links show it."""
    with browser.chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1200, "height": 630})
        page.set_content(CARD.format(strip=strip.standalone()))
        drawn = Image.open(io.BytesIO(page.screenshot()))
    written, notes = io.BytesIO(), PngInfo()
    notes.add_text("source", digest())
    drawn.quantize(64).save(written, "png", pnginfo=notes, optimize=True)
    return written.getvalue()


def main() -> None:
    drawn = strip.standalone()
    if "--check" not in sys.argv[1:]:
        STRIP.write_text(drawn, encoding="utf-8")
        PREVIEW.write_bytes(preview())
        return
    fresh = {
        STRIP: lambda: STRIP.read_text(encoding="utf-8") == drawn,
        PREVIEW: lambda: Image.open(PREVIEW).text.get("source") == digest(),
    }
    for path, same in fresh.items():
        if not path.exists() or not same():
            raise SystemExit(
                f"{path.relative_to(ROOT)} is out of step: run python -m tools.picture"
            )


if __name__ == "__main__":
    main()
