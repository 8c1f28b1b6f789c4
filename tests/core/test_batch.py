import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mtmm_lib.batch import Batch, Features, collate, pool, usable, valid_tokens


def make(n: int = 4) -> Batch:
    return Batch(
        {"a": torch.arange(n * 2.0).reshape(n, 2), "b": torch.ones(n, 3, 5)},
        {"y": torch.arange(n)},
        {"b": torch.tensor([True, False] * (n // 2))},
        {"b": torch.arange(n)},
    )


def test_slicing_and_indexing_take_every_tensor_along():
    batch = make()
    for part, rows in ((batch[1:3], [1, 2]), (batch[torch.tensor([3, 0])], [3, 0])):
        assert len(part) == 2
        assert part.targets["y"].tolist() == rows and part.lengths["b"].tolist() == rows
        assert part.inputs["a"].tolist() == batch.inputs["a"][rows].tolist()
        assert part.present["b"].tolist() == [
            batch.present["b"][row].item() for row in rows
        ]
    assert len(batch[batch.mask("b")]) == 2
    assert len(batch[2:2]) == 0
    with pytest.raises(TypeError, match="slice or a tensor"):
        batch[0]


def test_without_marks_absent_and_keeps_the_key():
    batch = make()
    less = batch.without("a")
    assert not less.mask("a").any() and "a" in less.inputs
    assert batch.mask("a").all(), "the original is unchanged"
    with pytest.raises(ValueError, match="unknown modalities"):
        batch.without("c")


def test_cat_fills_in_presence_and_undoes_a_split():
    batch = make()
    again = Batch.cat([batch[:1], batch[1:]])
    for group in ("inputs", "targets", "present", "lengths"):
        for key, value in getattr(batch, group).items():
            assert torch.equal(getattr(again, group)[key], value)
    mixed = Batch.cat(
        [Batch({"a": torch.zeros(2, 2)}), Batch({"a": torch.zeros(1, 2)}).without("a")]
    )
    assert mixed.present["a"].tolist() == [True, True, False]
    with pytest.raises(ValueError, match="targets differ"):
        Batch.cat([batch, Batch(batch.inputs, {}, {}, batch.lengths)])
    with pytest.raises(ValueError, match="at least one batch"):
        Batch.cat([])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"inputs": {}}, "at least one tensor"),
        (
            {"inputs": {"a": torch.zeros(2)}, "targets": {"y": torch.zeros(3)}},
            "same first size",
        ),
        (
            {"inputs": {"a": torch.zeros(2)}, "present": {"b": torch.ones(2) > 0}},
            "present names",
        ),
        (
            {"inputs": {"a": torch.zeros(2)}, "present": {"a": torch.ones(2)}},
            "bool tensor",
        ),
        (
            {"inputs": {"a": torch.zeros(2)}, "lengths": {"b": torch.ones(2)}},
            "lengths names",
        ),
    ],
)
def test_bad_input_says_what_was_expected(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Batch(**kwargs)


def test_pooling_is_the_mean_over_valid_tokens():
    tokens = torch.randn(3, 4, 2, dtype=torch.float64)
    valid = valid_tokens(torch.tensor([4, 2, 0]), 4)
    spoiled = torch.where(valid.unsqueeze(2), tokens, torch.nan).requires_grad_()
    pooled = pool(spoiled, valid)
    torch.testing.assert_close(pooled[0], tokens[0].mean(0))
    torch.testing.assert_close(pooled[1], tokens[1, :2].mean(0))
    assert pooled[2].eq(0).all()
    pooled.sum().backward()
    assert spoiled.grad.isfinite().all()


def test_a_vector_is_a_sequence_of_length_one():
    value = torch.randn(3, 2)
    vector, sequence = Features.vector(value), Features(value.unsqueeze(1))
    assert vector.pooled is value and vector.tokens is vector.tokens
    assert torch.equal(vector.tokens, sequence.tokens)
    assert torch.equal(sequence.pooled, value) and vector.valid is None
    assert vector.is_vector and not sequence.is_vector
    for features in (vector, sequence):
        assert features.is_wide(2) and not features.is_wide(3)
    for wrong in (Features.vector(value[0]), Features(value)):
        assert not wrong.is_wide(2)


@pytest.mark.parametrize("name", ["", "a.b", "type", "keys", "training", 3, None])
def test_names_that_torch_cannot_take_are_refused(name):
    with pytest.raises(ValueError, match=f"modality {name!r}: a name is a string"):
        usable(name, "modality")


@pytest.mark.parametrize("name", ["digit", "is_present", "digit/image", "图像", "a b"])
def test_any_other_name_will_do(name):
    assert usable(name, "task") is name
    nn.ModuleDict({name: nn.Identity()})
    nn.ParameterDict({name: nn.Parameter(torch.zeros(1))})


def test_a_task_may_be_named_as_what_only_parameters_cannot() -> None:
    """The containers of parameters have a method of this name, those of modules do
    not; a data set of the book has a task of this name."""
    assert usable("copy", "task") == "copy"
    with pytest.raises(ValueError, match="modality 'copy'"):
        usable("copy", "modality")


# What people bring


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"inputs": {"a": np.zeros((2, 3))}},
            TypeError,
            r"inputs\['a'\] is a ndarray.*Batch.from_arrays",
        ),
        ({"inputs": {"a": [[1.0]]}}, TypeError, r"inputs\['a'\] is a list"),
        ({"inputs": torch.zeros(2)}, TypeError, "dict from names to tensors, got Tens"),
        ({"inputs": {"a": torch.tensor(1.0)}}, ValueError, "is a single number"),
        (
            {"inputs": {"a": torch.zeros(2, 0, 3)}},
            ValueError,
            r"shape \[2, 0, 3\]: no number",
        ),
        (
            {"inputs": {"a": torch.zeros(2)}, "present": {"a": np.ones(2) > 0}},
            TypeError,
            r"present\['a'\] is a ndarray",
        ),
        (
            {
                "inputs": {"a": torch.zeros(2)},
                "present": {"a": torch.ones(2, 1) > 0},
            },
            ValueError,
            r"bool tensor of shape \[B\].*\[2, 1\]",
        ),
    ],
)
def test_what_is_no_batch_is_refused_in_a_sentence(kwargs, error, message):
    with pytest.raises(error, match=message):
        Batch(**kwargs)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 4, 2], r"lengths\['a'\] of sample 1 is 4, but the sequences have 0 to 3"),
        ([3, 0, -1], "of sample 2 is -1"),
        ([3.0, 0.0, 1.5], "whole numbers .* got torch.float32"),
        ([True, True, False], "whole numbers .* got torch.bool"),
        ([[3], [3], [3]], r"of shape \[3, 1\]"),
    ],
)
def test_lengths_out_of_range(lengths, message):
    with pytest.raises(ValueError, match=message):
        Batch({"a": torch.zeros(3, 3, 2)}, lengths={"a": torch.tensor(lengths)})


def test_lengths_of_what_is_no_sequence():
    with pytest.raises(ValueError, match="is no sequence"):
        Batch({"a": torch.zeros(3)}, lengths={"a": torch.ones(3).long()})


def test_slices_and_batches_inside_vmap_are_not_looked_at():
    tokens, lengths = torch.randn(2, 3, 4, 5), torch.tensor([[4, 0, 1], [2, 4, 4]])

    def pooled(x, n):
        batch = Batch({"a": x}, lengths={"a": n})[:2]
        return pool(batch.inputs["a"], valid_tokens(batch.lengths["a"], 4))

    got = torch.func.vmap(pooled)(tokens, lengths)
    for i in range(2):
        torch.testing.assert_close(got[i], pooled(tokens[i], lengths[i]))
    with pytest.raises(TypeError, match="slice or a tensor"):
        make()[np.int64(1)]


def test_arrays_of_any_precision():
    x = np.arange(12.0).reshape(3, 4)
    batch = Batch.from_arrays(
        {
            "double": x,
            "half": x.astype(np.float16),
            "backwards": x[::-1],
            "foreign": x.astype(">f8"),
            "ids": x.astype(np.int32),
            "bytes": x.astype(np.uint8),
            "bits": x > 3,
            "one": x[:, 0],
            "list": x.tolist(),
            "tensor": torch.from_numpy(x),
        },
        {
            "class": np.array([1, 0, 2], np.int32),
            "yes": [True, False, True],
            "real": np.array([1.5, np.nan, 2.0]),
        },
        {"double": [True, False, True]},
        {"ids": np.array([4, 0, 1], np.uint8)},
    )
    types = {key: value.dtype for key, value in batch.inputs.items()}
    assert {key for key, dtype in types.items() if dtype == torch.int64} == {
        "ids",
        "bytes",
    }
    assert {dtype for dtype in types.values()} == {torch.int64, torch.float32}
    for key, value in batch.inputs.items():
        expected = {"backwards": x[::-1], "bits": x > 3, "one": x[:, :1]}.get(key, x)
        assert value.tolist() == expected.tolist()
    assert batch.targets["class"].dtype == batch.targets["yes"].dtype == torch.int64
    assert batch.targets["real"].dtype == torch.float32
    assert batch.targets["real"].isnan().tolist() == [False, True, False]
    assert batch.present["double"].tolist() == [True, False, True]
    assert batch.lengths["ids"].tolist() == [4, 0, 1]


@pytest.mark.parametrize("inputs", [np.zeros((2, 3)), pd.DataFrame({"a": [1.0]})])
def test_arrays_come_by_name(inputs):
    with pytest.raises(TypeError, match="inputs is a dict from names to arrays"):
        Batch.from_arrays(inputs)
    with pytest.raises(TypeError, match="targets is a dict from names to arrays"):
        Batch.from_arrays({"a": [1.0]}, inputs)


def test_arrays_follow_the_default_precision():
    torch.set_default_dtype(torch.float64)
    try:
        assert Batch.from_arrays({"a": [1.5]}).inputs["a"].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_table_of_pandas():
    table = pd.DataFrame(
        {
            "age": pd.array([30, None, 41, 50], "Int64"),
            "dose": [0.5, 1.0, np.nan, 2.0],
            "smokes": [True, False, True, False],
            "drug": pd.Categorical(["b", None, "a", "b"]),
            "better": pd.array([True, None, False, True], "boolean"),
            "visits": [1, 2, 3, 4],
            "note": ["x", "y", None, "z"],
        },
        index=[5, 3, 9, 1],
    )
    batch = Batch.from_arrays(
        {"table": table[["age", "dose", "smokes"]], "counts": table[["visits"]]},
        {
            "drug": table["drug"],
            "better": table["better"],
            "age": table["age"],
            "visits": table["visits"],
            "both": table[["dose", "age"]],
        },
    )
    torch.testing.assert_close(
        batch.inputs["table"],
        torch.tensor([[30, 0.5, 1], [np.nan, 1, 0], [41, np.nan, 1], [50, 2, 0]]),
        equal_nan=True,
    )
    assert batch.inputs["counts"].dtype == torch.float32
    assert batch.targets["drug"].tolist() == [1, -1, 0, 1]
    assert batch.targets["better"].tolist() == [1, -1, 0, 1]
    assert batch.targets["visits"].tolist() == [1, 2, 3, 4]
    assert not batch.targets["visits"].is_floating_point()
    # whole numbers with gaps may be counts: -1 would be one of them
    torch.testing.assert_close(
        batch.targets["age"], torch.tensor([30, np.nan, 41, 50]), equal_nan=True
    )
    assert batch.targets["both"].shape == (4, 2)
    sparse = table[["dose"]].fillna(0).astype("Sparse[float]")
    assert Batch.from_arrays({"a": sparse}).inputs["a"].tolist() == [
        [0.5],
        [1],
        [0],
        [2],
    ]
    for key in ("note", "drug"):
        with pytest.raises(ValueError, match=rf"\['table'\], column '{key}', holds"):
            Batch.from_arrays({"table": table[["dose", key]]})
    with pytest.raises(ValueError, match=r"targets\['note'\] holds"):
        Batch.from_arrays({"table": table[["dose"]]}, {"note": table["note"]})
    with pytest.raises(ValueError, match="different row labels"):
        Batch.from_arrays(
            {"table": table[["dose"]]}, {"visits": table["visits"].sort_index()}
        )


@pytest.mark.parametrize(
    "value", [[[1.0], [1.0, 2.0]], ["a", "b"], np.array(["2020-01-01"], "M8[D]"), [1j]]
)
def test_what_holds_no_numbers_is_named(value):
    with pytest.raises(ValueError, match=r"inputs\['a'\] (holds|is a list)"):
        Batch.from_arrays({"a": value})


# Samples one by one


class Recordings(Dataset):
    """Sequences of different lengths beside pictures, with gaps everywhere."""

    def __init__(self, size: int = 12) -> None:
        rng = np.random.default_rng(0)
        self.sounds = [rng.normal(size=(1 + i % 5, 3)) for i in range(size)]
        self.pictures = rng.normal(size=(size, 1, 4, 4))

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, i):
        inputs = {"picture": self.pictures[i]}
        if i % 3:
            inputs["sound"] = self.sounds[i]
        targets = {"kind": i % 4, "size": float(i) if i % 2 else None}
        return inputs, targets if i != 7 else {}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_collates_samples(workers):
    data = Recordings()
    loader = DataLoader(data, batch_size=5, collate_fn=collate, num_workers=workers)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [5, 5, 2]
    first = batches[0]
    assert first.present["sound"].tolist() == [False, True, True, False, True]
    assert first.lengths["sound"].tolist() == [0, 2, 3, 0, 5]
    assert first.inputs["sound"].dtype == torch.float32
    for i in (1, 2, 4):
        row, n = first.inputs["sound"][i], len(data.sounds[i])
        torch.testing.assert_close(row[:n], torch.tensor(data.sounds[i]).float())
        assert row[n:].eq(0).all()
    assert first.inputs["sound"][0].eq(0).all()
    assert "picture" not in first.present and "picture" not in first.lengths
    assert batches[1].targets["kind"].tolist() == [1, 2, -1, 0, 1]
    size = batches[1].targets["size"]
    assert size.isnan().tolist() == [False, True, True, True, False]
    again = pickle.loads(pickle.dumps(first))
    assert torch.equal(again.inputs["sound"], first.inputs["sound"])


def test_one_sample_and_a_batch_where_nobody_has_it():
    data = Recordings()
    alone = collate([data[1]])
    assert alone.inputs["sound"].shape == (1, 2, 3) and not alone.lengths
    assert collate([{"a": 2.5}]).inputs["a"].tolist() == [[2.5]]
    silent = collate([data[0], data[3]])
    assert "sound" not in silent.inputs
    silent = collate([data[0], data[6]], like=data[1])
    assert silent.inputs["sound"].shape == (2, 2, 3)
    assert silent.present["sound"].tolist() == [False, False]
    assert silent.targets["size"].isnan().all()
    nothing = collate(
        [({"a": [1.0]}, {}), ({"a": [2.0]}, {"c": None})], like=({}, {"c": 1})
    )
    assert nothing.targets["c"].tolist() == [-1, -1]


def test_targets_for_each_step_are_padded_as_missing():
    samples = [
        ({"x": torch.zeros(n, 2)}, {"tag": torch.ones(n).long(), "level": [0.5] * n})
        for n in (1, 3)
    ]
    batch = collate([*samples, ({"x": None}, {"tag": None})])
    assert batch.targets["tag"].tolist() == [[1, -1, -1], [1, 1, 1], [-1, -1, -1]]
    assert batch.targets["level"].isnan().sum(1).tolist() == [2, 0, 3]
    assert batch.lengths["x"].tolist() == [1, 3, 0]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "at least one sample"),
        ([torch.zeros(2)], "a sample is .inputs, targets."),
        (
            [{"a": torch.zeros(2, 3)}, {"a": torch.zeros(2, 4)}],
            r"inputs\['a'\]: sample 1 of the batch has shape \[2, 4\]",
        ),
        ([({"a": [1.0]}, {"c": "cat"})], r"targets\['c'\] holds"),
    ],
)
def test_samples_that_make_no_batch(samples, message):
    with pytest.raises(ValueError, match=message):
        collate(samples)


def test_a_loader_may_pin_batches(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x) or x)
    from torch.utils.data._utils.pin_memory import pin_memory

    batch = pin_memory(make())
    assert isinstance(batch, Batch) and len(pinned) == 5
