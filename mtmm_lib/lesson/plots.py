"""One look for every figure: colour-blind-safe colours, readable sizes, a text
alternative."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from mtmm_lib.lesson import page

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

# Okabe and Ito (2008), in the order in which lines take them.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "yellow": "#E69F00",
    "sky": "#56B4E9",
    "black": "#222222",
}
# Nine that stay apart for every kind of colour vision, at 3 : 1 or more on white.
_SLATE, _BLACK, _INDIGO, _SKY, _VERMILION = (
    "#5B6670",
    "#111111",
    "#2B2A8C",
    "#1E97CF",
    "#CF5F00",
)
_RED, _WINE, _VIOLET, _TAN = "#B4161B", "#6B1B36", "#9450E0", "#A5805B"
_AMBER, _INK, _GREY = "#B87800", "#1B2733", "#86919A"

#: What has a colour of its own in the whole book, in groups that share a figure: name →
#: colour. Within a group every colour and every marker is another one.
LOOKS: dict[str, dict[str, str]] = {
    "modalities": {"image": "#0072B2", "audio": "#008A64", "text": "#B0568D"},
    "tasks": {"task 1": _AMBER, "task 2": _INK, "task 3": _GREY},
    "digit, parity, size": {"digit": _AMBER, "parity": _INK, "size": _GREY},
    "digit, rate, accent": {"digit": _AMBER, "rate": _INK, "accent": _GREY},
    "sharing": {
        "alone": _SLATE,
        "hard sharing": _VERMILION,
        "soft sharing": _INDIGO,
        "ridge": _TAN,
        "pooled": _BLACK,
        "stitches": _SKY,
        "MMoE": _VIOLET,
        "PLE": _RED,
        "MTAN": _WINE,
    },
    "second jobs": {
        "digit alone": _SLATE,
        "with parity and size": _SKY,
        "with rate": _VERMILION,
    },
    # The first five stand where they stand among "sharing", for their markers.
    "relations": {
        "alone": _SLATE,
        "graph": _VERMILION,
        "soft sharing": _INDIGO,
        "ridge": _TAN,
        "pooled": _BLACK,
        "tether and ridge": _SKY,
        "trace norm": _VIOLET,
        "joint sparsity": _RED,
    },
    "weights": {
        "equal weights": _SLATE,
        "tuned weights": _BLACK,
        "uncertainty": _VERMILION,
        "GradNorm": _INDIGO,
        "DWA": _TAN,
        "Σ log ℓ": _SKY,
        "IMTL-L": _VIOLET,
    },
    "gradients": {
        "sum": _SLATE,
        "tuned weights": _BLACK,
        "MGDA": _INDIGO,
        "MGDA, normalised": _SKY,
        "PCGrad": _VERMILION,
        "UPGrad": _RED,
        "CAGrad": _TAN,
        "Nash-MTL": _WINE,
        "IMTL-G": _VIOLET,
    },
    "fusion": {
        "sum": _SLATE,
        "product of experts": _BLACK,
        "gates": _VERMILION,
        "FiLM": _TAN,
        "tensor": _INDIGO,
        "low rank": _SKY,
        "attention": _VIOLET,
        "concatenation": _WINE,
    },
}
MARKERS = "os^Dv<>Pp"
DPI = 100


def style() -> None:
    """Set matplotlib's defaults: figures of 680 × 380 pixels, white, so that they read
    on dark pages too."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.figsize": (6.8, 3.8),
            "figure.dpi": DPI,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=list(COLOURS.values())),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlesize": 12,
            "axes.labelsize": 11,
            "grid.color": "#e3e7ea",
            "font.size": 11,
            "legend.frameon": False,
            "lines.linewidth": 2,
            "image.cmap": "cividis",
        }
    )


def colour(name: str) -> str:
    """The colour that a modality, a task or a method has in the whole book, as
    "#RRGGBB"; the page *Colours* shows them all.

        ax.bar(0, gain, color=colour("PCGrad"))

    Raises:
        KeyError: for a name without a colour; it says which names have one.
    """
    return look(name)["color"]


def look(name: str) -> dict[str, str]:
    """Colour and marker of a modality, a task or a method, for matplotlib: colour alone
    carries no meaning.

        ax.plot(steps, loss, label="PCGrad", **look("PCGrad"))

    Raises:
        KeyError: as `colour`.
    """
    for group in LOOKS.values():
        if name in group:
            return {"color": group[name], "marker": MARKERS[list(group).index(name)]}
    known = ", ".join(dict.fromkeys(name for group in LOOKS.values() for name in group))
    raise KeyError(f"{name!r} has no colour; LOOKS in lesson/plots.py has {known}")


def pixels(fig: Figure, scale: float) -> Image:
    """The figure drawn with `scale` image pixels to a pixel of the page; closes it."""
    import matplotlib.pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    fig.savefig(
        buffer,
        format="png",
        dpi=scale * DPI,
        facecolor="white",
        pil_kwargs={"compress_level": 1},
    )
    plt.close(fig)
    return Image.open(buffer).convert("RGB")


def encode(picture: Image, colours: int) -> bytes:
    """As lossless WebP of at most `colours` colours: text stays crisp at a third of the
    bytes."""
    from PIL.Image import Dither

    buffer = io.BytesIO()
    picture.quantize(colours, dither=Dither.NONE).convert("RGB").save(
        buffer, "webp", lossless=True, quality=80
    )
    return buffer.getvalue()


def printed(picture: Image, scale: float) -> bytes:
    """As PNG of 256 colours and the size that it has on the page: LaTeX knows neither
    HTML nor WebP."""
    from PIL.Image import Dither

    buffer = io.BytesIO()
    picture.quantize(256, dither=Dither.NONE).save(
        buffer, "png", optimize=True, dpi=(scale * DPI, scale * DPI)
    )
    return buffer.getvalue()


def tag(data: bytes, width: float, alt: str) -> str:
    """An `<img>` of the given width on the page, never wider than its container.

    Raises:
        ValueError: when the text alternative is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs a text alternative: say in alt= what it shows")
    return (
        f'<img alt="{escape(alt)}" '
        f'src="data:image/webp;base64,{base64.b64encode(data).decode()}" '
        f'width="{width:.0f}" '
        'style="max-width:100%;height:auto;padding:0;background:#fff;border-radius:5px">'
    )


def figure(fig: Figure, alt: str, caption: str = "") -> None:
    """Show a matplotlib figure with a text alternative and a caption, and close it.

    Args:
        fig: the figure.
        alt: what it shows, in words, for those who cannot see it.
        caption: the sentence under it.

    Raises:
        ValueError: when `alt` is empty.
    """
    picture = pixels(fig, scale=2)
    image = tag(encode(picture, 256), picture.width / 2, alt)
    html = page.captioned(image, caption)
    page.show(html, caption or alt, png=printed(picture, 2))
