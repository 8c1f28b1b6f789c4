from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtmm_lib.metrics import delta_m

positive = st.floats(0.01, 100)


def test_by_hand():
    # Accuracy up by a tenth of its baseline, error down by a fifth: (10 + 20) / 2.
    gain = delta_m({"digit": 0.88, "ink": 0.4}, {"digit": 0.8, "ink": 0.5}, {"digit": True, "ink": False})
    assert gain == pytest.approx(15.0)


@given(st.lists(st.tuples(positive, positive, st.booleans()), min_size=1, max_size=6), positive)
def test_units_do_not_matter_and_directions_flip_the_sign(rows, unit):
    results, baseline, higher = ({str(i): row[k] for i, row in enumerate(rows)} for k in range(3))
    gain = delta_m(results, baseline, higher)
    scaled = ({name: unit * value for name, value in numbers.items()} for numbers in (results, baseline))
    assert delta_m(*scaled, higher) == pytest.approx(gain)
    flipped = {name: not direction for name, direction in higher.items()}
    assert delta_m(results, baseline, flipped) == pytest.approx(-gain)
    assert delta_m(baseline, baseline, higher) == 0


def test_better_is_positive_for_negative_baselines_too():
    assert delta_m({"r2": -0.5}, {"r2": -1.0}, {"r2": True}) == pytest.approx(50)


def test_the_named_tasks_are_averaged():
    assert delta_m({"a": 2.0, "b": 9.0}, {"a": 1.0, "b": 1.0}, {"a": True}) == pytest.approx(100)


@pytest.mark.parametrize(
    ("results", "baseline", "higher", "message"),
    [
        ({"a": 1.0}, {"a": 1.0}, {}, "at least one task"),
        ({}, {"a": 1.0}, {"a": True}, "'a' is missing in results"),
        ({"a": 1.0}, {"b": 1.0}, {"a": True}, r"'a' is missing in baseline, which has \['b'\]"),
        ({"a": 1.0}, {"a": 0.0}, {"a": True}, "baseline of task 'a' is zero"),
        ({"a": math.nan}, {"a": 1.0}, {"a": True}, r"results\['a'\] is nan"),
        ({"a": 1.0}, {"a": math.inf}, {"a": True}, r"baseline\['a'\] is inf"),
    ],
)
def test_bad_input_is_refused(results, baseline, higher, message):
    with pytest.raises(ValueError, match=message):
        delta_m(results, baseline, higher)
