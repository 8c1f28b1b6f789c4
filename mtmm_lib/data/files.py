"""Where the data that travels with the project lies."""

from __future__ import annotations

from pathlib import Path


def data_file(*parts: str) -> Path:
    """Path of an embedded file, as in `data_file("talking_digits", "CARD.md")`.

    A wheel carries the repository's folder `data` inside the package; a checkout has it
    at its top.
    """
    packed = Path(__file__).with_name("embedded")
    folder = packed if packed.is_dir() else Path(__file__).parents[2] / "data"
    return folder.joinpath(*parts)
