"""One look for every figure: colour-blind-safe colours, readable sizes, a text alternative."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from mtmm_lib.lesson import page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
SCALE = 2  # pixels of the image per pixel on the page: sharp on fine screens


def style() -> None:
    """Set matplotlib's defaults: figures of 680 × 380 pixels on white, which reads on light and dark pages."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.figsize": (6.8, 3.8),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": mpl.cycler(color=list(COLOURS.values())),
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


def image(fig: Figure, alt: str) -> str:
    """The figure as an `<img>` with a text alternative, never wider than its container; closes the figure."""
    import matplotlib.pyplot as plt

    if not alt.strip():
        raise ValueError("a figure needs a text alternative: say what it shows in alt=")
    buffer = io.BytesIO()
    fig.savefig(
        buffer, format="webp", dpi=SCALE * 100, facecolor="white", pil_kwargs={"lossless": True, "method": 4}
    )
    plt.close(fig)
    width, height = (round(inches * 100) for inches in fig.get_size_inches())
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img alt="{escape(alt)}" src="data:image/webp;base64,{data}" width="{width}" height="{height}" '
        f'style="max-width:100%;height:auto;background:#fff;border-radius:4px">'
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
    text = f'<figcaption class="mtmm-soft">{escape(caption)}</figcaption>' if caption else ""
    page.show(f'<figure style="margin:0">{image(fig, alt)}{text}</figure>', caption or alt)
