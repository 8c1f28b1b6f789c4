"""Gates: balanced cells, and information that is what it is said to be."""

import numpy as np
import pytest

from mtmm_lib.data import information_gate
from mtmm_lib.data.files import data_file
from mtmm_lib.data.information_gate import GATES
from mtmm_lib.metrics import partial_information

every_gate = pytest.mark.parametrize("name", GATES)


@every_gate
def test_the_known_information_is_that_of_the_table(name):
    gate = information_gate(name)
    assert partial_information(gate.table) == pytest.approx(gate.information, abs=1e-9)


@every_gate
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_samples_have_the_frequencies_of_the_table(name, noise):
    gate = information_gate(name, samples=400, noise=noise)
    for batch in gate.splits:
        a, b, y = (
            (batch.inputs["a"][:, 0] > 0).long(),
            (batch.inputs["b"][:, 0] > 0).long(),
            batch.targets["y"],
        )
        found = np.zeros_like(gate.table)
        np.add.at(found, (a.numpy(), b.numpy(), y.numpy()), 1 / len(batch))
        np.testing.assert_allclose(found, gate.table, atol=1e-12)
        assert (
            batch.inputs["a"].shape == (len(batch), 1) and gate.classes == y.max() + 1
        )
        spread = float((batch.inputs["a"].abs() - 1).std())
        assert spread == pytest.approx(noise, rel=0.2)


def test_xor_and_sum_are_what_their_names_say():
    for name, expected in (
        ("xor", lambda a, b: a * b < 0),
        ("sum", lambda a, b: (a + b) / 2 + 1),
    ):
        batch = information_gate(name).splits.train
        a, b = batch.inputs["a"][:, 0], batch.inputs["b"][:, 0]
        assert (batch.targets["y"] == expected(a, b)).all()


def test_any_size_is_balanced_to_the_nearest_sample():
    batch = information_gate("pair", samples=7).splits.train
    assert sorted(batch.targets["y"].bincount().tolist()) == [1, 2, 2, 2]


def test_a_seed_gives_the_same_data_and_another_one_others():
    one, same, other = (
        information_gate("xor", seed=s, noise=0.5).splits for s in (3, 3, 4)
    )
    for x, y, z in zip(one, same, other, strict=True):
        assert x.inputs["a"].equal(y.inputs["a"]) and not x.inputs["a"].equal(
            z.inputs["a"]
        )
        assert x.targets["y"].equal(y.targets["y"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate": "nand"}, r"unknown gate 'nand'; the gates are \['xor'"),
        ({"gate": "xor", "noise": -1.0}, "noise needs to be >= 0"),
        ({"gate": "xor", "samples": 0}, "every split a sample"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        information_gate(**arguments)


def test_the_cards_table_is_what_its_code_prints(capsys):
    card = data_file("information_gate", "CARD.md").read_text(encoding="utf-8")
    exec(card.split("```python")[1].split("```")[0], {})
    printed = [
        [cell.strip() for cell in line.split("|")]
        for line in capsys.readouterr().out.splitlines()
    ]
    rows = [line for line in card.splitlines() if line.startswith("|")][2:]
    stated = [[cell.strip() for cell in row.split("|")] for row in rows]
    assert [row[:2] + row[3:] for row in stated] == printed
