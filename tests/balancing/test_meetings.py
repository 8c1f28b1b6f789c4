"""Gradients that are never written down, against gradients that are: the same Gramian,
and the same sum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from mtmm_lib.balancing import backward, meetings, weightings
from mtmm_lib.balancing.meetings import TaskGradients
from mtmm_lib.batch import Batch
from mtmm_lib.encoders import ConvEncoder, MLPEncoder, SequenceEncoder
from mtmm_lib.fusion import ConcatFusion, CrossModalFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import ALL as SHARINGS
from mtmm_lib.tasks import Classification, Regression

B, WIDE = 6, 136
WEIGHTS = (0.7, -1.3, 2.0)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


class Net(nn.Module):
    """Three heads on a trunk that a test writes down."""

    def __init__(
        self, layers: nn.ModuleDict, trunk: Callable[[nn.ModuleDict, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.layers, self.trunk = layers, trunk
        self.heads = nn.ModuleList(nn.Linear(WIDE, 2) for _ in WEIGHTS)
        self.double()

    def losses(self) -> dict[str, Tensor]:
        z = self.trunk(self.layers, draw(B, WIDE).double())
        return {
            f"task{t}": (head(z) - t).square().mean()
            for t, head in enumerate(self.heads)
        }


def square(**options: bool) -> nn.Linear:
    return nn.Linear(WIDE, WIDE, **options)


def tokens(layers: nn.ModuleDict, x: Tensor) -> Tensor:
    """Two tokens a sample, the batch not in front: no product of two matrices as it
    is."""
    pairs = torch.stack([x, x.tanh()]).movedim(0, 1)  # [B, 2, D], strides of [2, B, D]
    return layers["a"](pairs).relu().mean(1)


def hooked(layers: nn.ModuleDict, x: Tensor) -> Tensor:
    """A hook that changes the gradient of what lies between two layers."""
    between = layers["a"](x)
    between.register_hook(lambda gradient: 3 * gradient)
    return layers["b"](between.tanh())


#: Trunk, and the weights whose gradients should not be written down.
TRUNKS: dict[str, tuple[dict[str, nn.Module], Callable, set[str]]] = {
    "two layers": (
        {"a": square(), "b": square()},
        lambda layers, x: layers["b"](layers["a"](x).tanh()),
        {"a.weight", "b.weight"},
    ),
    "without a bias": (
        {"a": square(bias=False)},
        lambda layers, x: layers["a"](x).tanh(),
        {"a.weight"},
    ),
    "in place": (
        {"a": square(), "b": square()},
        lambda layers, x: layers["b"](F.relu(layers["a"](x), inplace=True)),
        {"a.weight", "b.weight"},
    ),
    "tokens": (
        {"a": square()},
        lambda layers, x: layers["a"](torch.stack([x, x.tanh()], 1)).relu().mean(1),
        {"a.weight"},
    ),
    "tokens in another order": ({"a": square()}, tokens, {"a.weight"}),
    "a hook between the layers": (
        {"a": square(), "b": square()},
        hooked,
        {"a.weight", "b.weight"},
    ),
    "computed again on the way back": (
        {"a": square(), "b": square()},
        lambda layers, x: checkpoint(
            lambda y: layers["b"](layers["a"](y).tanh()), x, use_reentrant=False
        ),
        {"a.weight", "b.weight"},
    ),
    "in one place only as long as the batch": (
        {"a": square(), "b": square()},
        lambda layers, x: layers["b"](
            layers["a"](torch.cat([x * s for s in range(1, 20)])).view(19, B, WIDE)
        ).mean(0),
        set(),  # 19 B samples are more than it takes
    ),
    "used twice": (
        {"a": square(), "b": square()},
        lambda layers, x: layers["a"](layers["b"](layers["a"](x).tanh()).tanh()),
        {"b.weight"},
    ),
    "used twice, once by itself": (
        {"a": square(), "b": square()},
        lambda layers, x: (
            layers["b"](layers["a"](x).tanh()) + layers["a"].weight.square().mean()
        ),
        {"b.weight"},
    ),
    "tied": (
        {"a": square(), "b": square()},
        lambda layers, x: F.linear(layers["b"](x).tanh(), layers["a"].weight.T)
        + layers["a"](x),
        {"b.weight"},
    ),
    "not transposed": (
        {"a": square(), "b": square()},
        lambda layers, x: layers["b"]((x @ layers["a"].weight).tanh()),
        {"b.weight"},
    ),
    "a first factor": (
        {"a": square(), "b": square()},
        lambda layers, x: layers["b"]((layers["a"].weight.T @ x.T).T.tanh()),
        {"b.weight"},
    ),
    "a multiple of the product": (
        {"a": square(), "b": square()},
        lambda layers, x: layers["b"](
            torch.addmm(
                layers["a"].bias, x, layers["a"].weight.T, alpha=0.3, beta=2.0
            ).tanh()
        ),
        {"b.weight"},
    ),
    "parametrised": (
        {"a": parametrizations.weight_norm(square()), "b": square()},
        lambda layers, x: layers["b"](layers["a"](x).tanh()),
        {"b.weight"},
    ),
    "part of a weight": (
        {"a": square(), "b": square()},
        lambda layers, x: layers["b"](F.linear(x[:, :100], layers["a"].weight[:, :100]))
        .tanh(),
        {"b.weight"},
    ),
    "a convolution": (
        {"a": nn.Conv1d(1, 128, 9, padding=4), "b": square()},
        lambda layers, x: layers["b"](layers["a"](x.unsqueeze(1)).relu().mean(1)),
        {"b.weight"},
    ),
    "normalised": (
        {"a": square(), "norm": nn.LayerNorm(WIDE)},
        lambda layers, x: layers["norm"](layers["a"](x)),
        {"a.weight"},
    ),
}  # fmt: skip


def of(model: nn.Module, losses: Callable[[], dict[str, Tensor]], whole: bool):
    """The Gramian, and parameter → gradient of a weighted sum; and the parameters whose
    gradients were not written down."""
    parameters = dict(model.named_parameters())
    for p in parameters.values():
        p.grad = None
    found = TaskGradients(
        losses(), None, "parameters", list(parameters.values()), whole=whole
    )
    gramian = found.gramian()
    spared = {id(place.at) for place in found.meetings if place.inputs is not None}
    found.apply(WEIGHTS[: len(found.names)])
    gradients = {n: p.grad for n, p in parameters.items() if p.grad is not None}
    return gramian, gradients, {n for n, p in parameters.items() if id(p) in spared}


def compare(model: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> set[str]:
    """Both ways; returns the parameters whose gradients were not written down."""
    expected, sums, none = of(model, losses, True)
    gramian, found, spared = of(model, losses, False)
    assert none == set() and sums.keys() == found.keys()
    size = np.sqrt(np.diagonal(expected))
    assert (np.abs(gramian - expected) <= 1e-12 * np.outer(size, size)).all()
    for name, gradient in sums.items():
        assert torch.allclose(found[name], gradient, rtol=1e-10, atol=1e-13), name
        assert found[name].stride() == gradient.stride()
    return spared


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_same_gramian_and_the_same_sum(trunk):
    layers, forward, expected = TRUNKS[trunk]
    net = Net(nn.ModuleDict(layers), forward)
    spared = compare(net, net.losses)
    assert {name.removeprefix("layers.") for name in spared} == expected


@pytest.mark.parametrize("columns", [1, 4, 7, 100])
def test_the_same_in_whatever_parts_it_is_multiplied(monkeypatch, columns):
    monkeypatch.setattr(meetings, "COLUMNS", columns)
    layers, forward, expected = TRUNKS["two layers"]
    net = Net(nn.ModuleDict(layers), forward)
    assert len(compare(net, net.losses)) == len(expected)


def test_a_hook_on_a_weight_sees_its_gradients():
    net = Net(nn.ModuleDict({"a": square()}), lambda layers, x: layers["a"](x).tanh())
    seen = []
    net.layers["a"].weight.register_hook(lambda gradient: seen.append(gradient))
    TaskGradients(net.losses(), None, "parameters")
    assert [g.shape for g in seen] == [net.layers["a"].weight.shape] * 3


def test_a_loss_that_does_not_get_there_and_a_loss_of_its_own():
    """Two of three losses share a layer; another layer is the third's."""
    shared, alone, first = square().double(), square().double(), square().double()
    model = nn.ModuleDict({"shared": shared, "alone": alone, "first": first})

    def losses():
        x = first(draw(B, WIDE).double()).tanh()
        a, b = shared(x), alone(x)
        return {"a": a.square().mean(), "b": a.tanh().mean(), "c": b.square().mean()}

    assert compare(model, losses) == {"shared.weight", "first.weight"}
    _, gradients, _ = of(model, losses, False)
    (own,) = torch.autograd.grad(losses()["c"], alone.weight)
    assert torch.allclose(gradients["alone.weight"], own)


def model_of(encoder: nn.Module, sharing: str = "HardSharing") -> Model:
    tasks = [Classification("kind", 3), Regression("size"), Regression("loud")]
    names = [task.name for task in tasks]
    encoders = {"image": encoder, "sound": MLPEncoder(4, WIDE, hidden=(WIDE,))}
    dims = dict.fromkeys(encoders, WIDE)
    if isinstance(encoder, SequenceEncoder):
        fusion = CrossModalFusion(dims, WIDE, heads=4, layers=1)
    else:
        fusion = ConcatFusion(dims, WIDE)
    return Model(encoders, fusion, SHARINGS[sharing](names, WIDE, WIDE), tasks).double()


def data(image: Tensor) -> Batch:
    targets = {
        "kind": torch.tensor([0, 1, 2, 0, -1, 1]),
        "size": draw(B).double(),
        "loud": draw(B + 1)[1:].double(),
    }
    inputs = {"image": image.double(), "sound": draw(B, 4).double()}
    present = {"sound": torch.tensor([1, 0, 1, 1, 1, 0]).bool()}
    return Batch(inputs, targets, present)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_models_with_every_sharing(sharing):
    torch.manual_seed(0)
    model, batch = (
        model_of(MLPEncoder(9, WIDE, hidden=(WIDE,)), sharing),
        data(draw(B, 9)),
    )
    spared = compare(model, lambda: model.losses(model(batch), batch))
    assert "encoders.image.layers.2.weight" in spared or len(spared) >= 2
    if sharing == "HardSharing":
        assert any(name.startswith("sharing") for name in spared)


def test_convolutions_and_attention():
    torch.manual_seed(0)
    images, steps = data(draw(B, 1, 8, 8)), data(draw(B, 3, 5))
    conv, attention = model_of(ConvEncoder(1, WIDE)), model_of(SequenceEncoder(5, WIDE))
    for model, batch in ((conv, images), (attention, steps)):
        spared = compare(model, lambda: model.losses(model(batch), batch))  # noqa: B023
        assert spared and not any("conv" in name or "norm" in name for name in spared)


def test_equal_gradients_are_equal_to_double_precision():
    """Of a network in single precision, too: a Gramian with an eigenvalue that is no
    more than single precision's rounding would make some methods stop."""
    torch.manual_seed(0)
    net = Net(nn.ModuleDict(TRUNKS["two layers"][0]), TRUNKS["two layers"][1]).float()
    x = draw(B, WIDE)

    def losses():
        z = net.trunk(net.layers, x)
        size = net.heads[0](z).square().mean()
        return {"a": size, "b": 1 * size, "c": -size}

    gramian, _, spared = of(net, losses, False)
    assert len(spared) == 2
    signs = np.array([1, 1, -1])
    error = np.abs(gramian - gramian[0, 0] * np.outer(signs, signs))
    assert error.max() <= 1e-13 * gramian[0, 0]
    for p in net.parameters():
        p.grad = None
    two = {name: loss for name, loss in losses().items() if name != "c"}
    backward(two, None, weightings.aligned_mtl)
    (expected,) = torch.autograd.grad(losses()["a"], net.layers["a"].weight)
    assert torch.allclose(net.layers["a"].weight.grad, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_gradients_near_the_ends_of_single_precision(scale):
    torch.manual_seed(0)
    net = Net(nn.ModuleDict(TRUNKS["two layers"][0]), TRUNKS["two layers"][1]).float()
    x = draw(B, WIDE)

    def losses():
        z = net.trunk(net.layers, x)
        return {
            f"task{t}": (scale if t else 1.0) * head(z).mean()
            for t, head in enumerate(net.heads)
        }

    expected, _, _ = of(net, losses, True)
    gramian, gradients, spared = of(net, losses, False)
    assert len(spared) == 2 and all(g.isfinite().all() for g in gradients.values())
    size = np.sqrt(np.diagonal(expected))
    assert (np.abs(gramian - expected) <= 1e-5 * np.outer(size, size)).all()


def test_inputs_that_are_not_finite_are_named():
    net = Net(nn.ModuleDict(TRUNKS["two layers"][0]), TRUNKS["two layers"][1])
    losses = net.losses()
    # finite, but its gradient is not
    losses["task1"] = losses["task1"] + 0 * (net.layers["a"].weight.sum() * 0).sqrt()
    net.layers["a"].weight.grad = None
    with pytest.raises(FloatingPointError, match=r"tasks \['task1'\] are not finite"):
        backward(losses, None, weightings.upgrad)


def test_rows_hold_less_than_whole_gradients():
    """What the way round is for: less to hold, by the share of the batch in the
    width."""
    net = Net(nn.ModuleDict(TRUNKS["two layers"][0]), TRUNKS["two layers"][1])

    def held(whole: bool) -> int:
        found = TaskGradients(net.losses(), None, "parameters", whole=whole)
        return sum(
            row.numel() for place in found.meetings for row in place.there().values()
        )

    weights, biases = 2 * 3 * WIDE * WIDE, 2 * 3 * WIDE
    assert held(True) == weights + biases
    assert held(False) == weights * B // WIDE + biases


def test_the_graph_stays_for_another_pass_only_where_it_is_asked_to():
    net = Net(nn.ModuleDict(TRUNKS["two layers"][0]), TRUNKS["two layers"][1])
    losses = net.losses()
    TaskGradients(losses, None, "parameters", keep_graph=True)
    TaskGradients(losses, None, "parameters")
    with pytest.raises(RuntimeError, match="second time"):
        losses["task0"].backward()


class Blocked(torch.autograd.Function):
    """What hands no gradient back."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> None:
        return None


def heads(*widths: int, bias: bool = True) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(WIDE, width, bias=bias) for width in widths)


def each(heads: nn.ModuleList, z: Tensor) -> list[Tensor]:
    return [(head(z) - t).square().mean() for t, head in enumerate(heads)]


def negative(heads: nn.ModuleList, z: Tensor) -> list[Tensor]:
    """A hook on a prediction, such as a reversed gradient."""
    predictions = [head(z) for head in heads]
    predictions[1].register_hook(lambda gradient: -3 * gradient)
    return [(p - t).square().mean() for t, p in enumerate(predictions)]


def prediction_of_two(heads: nn.ModuleList, z: Tensor) -> list[Tensor]:
    prediction = heads[0](z)
    return [prediction.square().mean(), prediction.exp().mean()]


#: Heads, losses, and whether these get to the features through a narrow linear layer
#: each, and in no other way.
HEADS: dict[str, tuple[nn.ModuleList, Callable, bool]] = {
    "linear": (heads(2, 2, 2), each, True),
    "of several widths": (heads(1, 4, 2), each, True),
    "without a bias": (heads(2, 1, bias=False), each, True),
    "frozen": (heads(2, 2).requires_grad_(False), each, True),
    "and more behind them": (
        heads(2, 2),
        lambda heads, z: [head(z).tanh().sum(1).exp().sum() for head in heads],
        True,
    ),
    "a hook on a prediction": (heads(2, 2, 2), negative, True),
    "a part of them": (heads(2, 2), lambda heads, z: each(heads, z[:3]), False),
    "in another shape": (
        heads(2, 2), lambda heads, z: each(heads, z.view(B, 1, WIDE).squeeze(1)),
        True,
    ),
    "too wide to gain": (heads(99, 99), each, False),
    "read twice": (
        heads(2, 2),
        lambda heads, z: [loss + z.square().mean() for loss in each(heads, z)],
        False,
    ),
    "squared": (heads(2, 2), lambda heads, z: each(heads, z * z), False),
    "a multiple": (
        heads(2, 2),
        lambda heads, z: [
            torch.addmm(head.bias, z, head.weight.T, alpha=3.0).exp().mean()
            for head in heads
        ],
        False,
    ),
    "a second factor": (
        heads(2, 2),
        lambda heads, z: [
            (z.new_ones(2, B) @ z).square().mean() * head.bias.sum() for head in heads
        ],
        False,
    ),
    "two layers for one loss": (
        heads(2, 2, 2),
        lambda heads, z: [sum(each(heads[:2], z)), each(heads[2:], z)[0]],
        False,
    ),
    "one prediction for two losses": (
        heads(2, 2).requires_grad_(False), prediction_of_two, False,
    ),
    "nothing comes back": (
        heads(2, 2),
        lambda heads, z: [*each(heads[:1], z), Blocked.apply(heads[1](z)).mean()],
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
def test_gradients_at_the_features_against_those_taken_one_by_one(kind):
    own, forward, fans_out = HEADS[kind]
    torch.manual_seed(0)
    trunk, own = square().double(), own.double()
    x = draw(B, WIDE).double()

    def at(z):
        return dict(zip("abc", forward(own, z), strict=False))

    z = trunk(x)
    losses = at(z)
    rows = [
        torch.zeros_like(z) if row is None else row
        for loss in losses.values()
        for row in torch.autograd.grad(loss, [z], retain_graph=True, allow_unused=True)
    ]
    learned = [p for p in own.parameters() if p.requires_grad]
    total = sum(w * row for w, row in zip(WEIGHTS, rows, strict=False))
    sums = torch.autograd.grad(z, [*trunk.parameters()], total, retain_graph=True)
    if learned:
        sums += torch.autograd.grad(sum(losses.values()), learned, allow_unused=True)

    z = trunk(x)
    found = TaskGradients(at(z), z, "features")
    assert (found.fan is not None) == fans_out
    flat = torch.stack([row.flatten() for row in rows])
    expected = (flat @ flat.T).numpy()
    size = np.sqrt(np.diagonal(expected))
    error = np.abs(found.gramian() - expected)
    assert (error <= 1e-12 * np.outer(size, size)).all()
    found.apply(WEIGHTS[: len(losses)])
    for p, gradient in zip([*trunk.parameters(), *learned], sums, strict=True):
        if gradient is None:
            assert p.grad is None
        else:
            assert torch.allclose(p.grad, gradient, rtol=1e-10, atol=1e-13)


def test_a_head_whose_gradient_is_not_finite_is_named_alone():
    trunk, own = square().double(), heads(2, 2, 2).double()
    z = trunk(draw(B, WIDE).double())
    predictions = {name: head(z) for name, head in zip("abc", own, strict=True)}
    losses = {name: p.square().mean() for name, p in predictions.items()}
    # finite, but its gradient is not
    losses["b"] = losses["b"] + 0 * (predictions["b"].sum() * 0).sqrt()
    found = TaskGradients(losses, z, "features")
    assert found.fan is not None
    with pytest.raises(FloatingPointError, match=r"tasks \['b'\] are not finite"):
        found.gramian()


def test_a_gradient_that_cancels_out_has_no_negative_square():
    """That of a softmax of scores that are the same function of the features is zero,
    up to rounding."""
    names = torch.arange(B) % 4
    for seed in range(8):
        torch.manual_seed(seed)
        trunk, own = square().double(), heads(4, 4, 4).double()
        for head in own:
            nn.init.ones_(head.weight)
        z = trunk(draw(B, WIDE).double())
        losses = {
            name: F.cross_entropy(head(z), names)
            for name, head in zip("abc", own, strict=True)
        }
        found = TaskGradients(losses, z, "features")
        assert found.fan is not None
        squares = np.diagonal(found.gramian())
        assert (squares >= 0).all() and (squares < 1e-12).all()


def test_features_that_are_added_to_a_product():
    trunk, own = nn.Linear(WIDE, 2), heads(2, 2)
    z = trunk(draw(B, WIDE))
    losses = {
        name: torch.addmm(z, draw(B, 2).requires_grad_(), h.weight[:, :2]).exp().mean()
        for name, h in zip("ab", own, strict=True)
    }
    found = TaskGradients(losses, z, "features")
    assert found.fan is None and len(found.meetings) == 1


def test_a_hook_on_the_features_sees_the_weighted_sum_once():
    trunk, own = square().double(), heads(2, 2).double()
    z = trunk(draw(B, WIDE).double())
    seen = []
    z.register_hook(seen.append)
    losses = dict(zip("ab", each(own, z), strict=True))
    backward(losses, z, lambda gramian: np.array([2.0, -1]), "features")
    again = trunk(draw(B, WIDE).double())
    first, second = each(own, again)
    (expected,) = torch.autograd.grad(2 * first - second, again)
    assert len(seen) == 1 and torch.allclose(seen[0], expected)


def test_models_fan_out_from_their_trunk():
    """The pooled vector that a model's heads read is its features in another shape."""
    torch.manual_seed(0)
    model, batch = model_of(MLPEncoder(9, WIDE)), data(draw(B, 9))
    output = model(batch)
    found = TaskGradients(model.losses(output, batch), output.shared, "features")
    assert found.fan is not None
