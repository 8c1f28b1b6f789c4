"""Names have one colour each, which everybody can tell apart."""

from itertools import combinations

import numpy as np
import pytest

from mtmm_lib.lesson import colour, look
from mtmm_lib.lesson.plots import LOOKS

# How linear RGB looks to the common kinds of colour vision (Machado et al. 2009, full
# severity).
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(name: str) -> np.ndarray:
    code = np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("group", LOOKS)
@pytest.mark.parametrize("vision", VISIONS)
def test_within_a_group_colours_differ_for_every_eye(group: str, vision: str) -> None:
    seen = {n: lab(VISIONS[vision] @ linear(c)) for n, c in LOOKS[group].items()}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 10, (one, other)


def test_colours_stand_out_on_white_and_markers_differ() -> None:
    for group in LOOKS.values():
        assert len({look(name)["marker"] for name in group}) == len(group)
        for name, code in group.items():
            light = TO_XYZ[1] @ linear(code)
            assert 1.05 / (light + 0.05) >= 3, name


def test_a_name_has_one_colour_in_the_whole_book() -> None:
    colours: dict[str, set[str]] = {}
    for group in LOOKS.values():
        for name, code in group.items():
            colours.setdefault(name, set()).add(code)
    assert all(len(codes) == 1 for codes in colours.values()), colours
    assert colour("PCGrad") == look("PCGrad")["color"]
    with pytest.raises(KeyError, match="'PCgrad' has no colour.*PCGrad"):
        colour("PCgrad")
