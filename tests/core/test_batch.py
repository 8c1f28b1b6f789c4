import pytest
import torch
from torch import nn

from mtmm_lib.batch import Batch, Features, pool, usable, valid_tokens


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
    assert Features.vector(tokens[:, 0]).tokens.shape == (3, 1, 2)


@pytest.mark.parametrize("name", ["", "a.b", "type", "keys", "training", 3, None])
def test_names_that_torch_cannot_take_are_refused(name):
    with pytest.raises(ValueError, match=f"modality {name!r}: a name is a string"):
        usable(name, "modality")


@pytest.mark.parametrize("name", ["digit", "is_present", "digit/image", "图像", "a b"])
def test_any_other_name_will_do(name):
    assert usable(name, "task") is name
    nn.ModuleDict({name: nn.Identity()})
    nn.ParameterDict({name: nn.Parameter(torch.zeros(1))})
