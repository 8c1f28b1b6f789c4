"""Sounds in a notebook: `listen({"clip 1": wav, …}, alt="…")`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

from mtmm_lib.lesson import page

MAX_BYTES = 50_000


def listen(sounds: Mapping[str, bytes], *, alt: str, caption: str = "") -> None:
    """Show a player for each sound. They travel with the page and need no kernel.

        listen(
            {"clean": clean, "noisy": noisy},
            alt="A man says “two”, first clearly, then through a crackle.",
        )

    Args:
        sounds: label → WAV file, as `wav_bytes` makes it.
        alt: what one hears, in words, for those who cannot hear it. It is folded: in
            front of a question it tells the answer.
        caption: the sentence under the players.

    Raises:
        ValueError: for no sound, one that is no WAV file or has more than 50 kB, or an
            empty `alt`.
    """
    if not sounds:
        raise ValueError("listen takes at least one sound, as in {'clip 1': wav}")
    if not alt.strip():
        raise ValueError("sounds need a text alternative: say in alt= what one hears")
    players = ""
    for label, data in sounds.items():
        if data[:4] != b"RIFF" or data[8:12] != b"WAVE" or len(data) > MAX_BYTES:
            raise ValueError(
                f"{label!r} has to be a WAV file of at most {MAX_BYTES:,} bytes, got "
                f"{len(data):,} bytes that begin with {data[:4]!r}"
            )
        name = escape(label, quote=True)
        players += (
            f'<div><span>{name}</span><audio controls preload="metadata" '
            f'aria-label="{name}" src="data:audio/wav;base64,'
            f'{base64.b64encode(data).decode()}"></audio></div>'
        )
    shown = (
        f'<div class="mtmm-sounds">{players}</div>'
        f'<details class="mtmm-soft"><summary>In words</summary><p>{escape(alt)}</p>'
        "</details>"
    )
    page.show(
        f"{page.style('listen')}{page.captioned(shown, caption)}",
        f"{caption or 'Sounds'}: {', '.join(sounds)}. {alt}",
        classes="mtmm-listen",
    )
