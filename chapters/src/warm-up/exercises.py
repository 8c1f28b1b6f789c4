"""Exercises of the lesson "Warm-up"."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.lesson.exercises import Hint, function, lines

lines(
    "which-shape",
    {
        "x @ w with x [32, 64] and w [64, 10]": [32, 10],
        "a - m with a [32, 10] and m [32, 1]": [32, 10],
        "a + b with a [32, 1] and b [32]": [32, 32],
        "x.mean(0) with x [32, 64]": [64],
        "g.unsqueeze(1) * h with g [4] and h [5]": [4, 5],
    },
    others=([32], [32, 1], [1, 64], [32, 64], [5, 4], 64),
    mistakes={
        "A shape is a list such as [32, 10], but that of “{line}” is {given}.": (
            lambda line, given, right: not isinstance(given, (list, tuple))
        ),
        "Look again at “{line}”. Write the shapes one above the other, flush right: "
        "the 1 stands above the 32.": (
            lambda line, given, right: (
                line.startswith("a + b") and list(given) in ([32], [32, 1])
            )
        ),
        "Look again at “{line}”: mean(0) takes the mean over axis 0, and that axis is "
        "gone from the result.": lambda line, given, right: "mean" in line,
    },
)


@function(
    "count-net",
    mistakes={
        "Those are the weights. Each output has a bias, too.": lambda: 20,
        "That is the first layer alone.": lambda: 16,
        "That is the second layer alone.": lambda: 10,
    },
)
def _() -> int:
    return (3 + 1) * 4 + (4 + 1) * 2


def _logits() -> list[tuple[Tensor, Tensor]]:
    """Of ordinary size; all near 10,000; some near 10,000, others near −10,000."""
    cases = []
    for size, classes in ((7, 5), (1, 3), (12, 4)):
        y = torch.randint(classes, (size,))
        cases.append((3 * torch.randn(size, classes), y))
        cases.append((torch.randn(size, classes) + 1e4, y))
    signs = torch.tensor([1e4, -1e4]).repeat(4)[:7]
    cases.append((torch.randn(7, 5) + signs[:, None], torch.randint(5, (7,))))
    return cases


def _over_sums(logits: Tensor, y: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(y)), y].log2().mean()


@function(
    "in-bits",
    inputs=_logits,
    mistakes={
        "These are nats: the logarithm is the natural one. A bit is log 2 of them.": (
            F.cross_entropy
        ),
        "A nat is more than a bit, so the number of bits is the larger one: divide by "
        "log 2.": lambda logits, y: F.cross_entropy(logits, y) * log(2),
        "That is the sum over the batch; the mean was asked for.": (
            lambda logits, y: bits(logits, y) * len(y)
        ),
        "With all logits near 10,000 it is no number: e^10000 overflows. Subtract "
        "something first.": _over_sums,
        "With samples around +10,000 beside others around −10,000 it is wrong. One "
        "number for the whole batch does not do: each sample needs its own.": (
            lambda logits, y: _over_sums(logits - logits.max(), y)
        ),
    },
)
def bits(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y) / log(2)


def _landscapes() -> list[tuple[Any, ...]]:
    """Functions of tensors, with steps so small that the slopes come out exactly, so
    large that they do not, and none given."""
    cases = []
    for shape, h in (((4,), [0.001]), ((2, 3), [0.5]), ((1,), [0.1]), ((2, 2), [])):
        a, w = (torch.randn(shape, dtype=torch.float64) for _ in range(2))

        def f(w: Tensor, a: Tensor = a) -> Tensor:
            return (a * w.sin()).sum() + (w[0] * w[-1]).sum() ** 2 + w.exp().sum()

        cases.append((f, w, *h))
    return cases


def _moved(f: Callable[[Tensor], Tensor], w: Tensor, up: float, down: float) -> Tensor:
    """What f gains from w − down to w + up, for each entry of w."""
    steps = torch.eye(w.numel(), dtype=w.dtype).view(-1, *w.shape)
    gains = [f(w + up * step) - f(w - down * step) for step in steps]
    return torch.stack(gains).view(w.shape)


@function(
    "by-differences",
    inputs=_landscapes,
    unchanged="Your function has changed w. Move a copy, or add a small tensor to it.",
    differs="At w = {w} the slope at {place} should be {expected}; yours is {yours}.",
    mistakes={
        "Twice too large: from w − h to w + h it is a way of 2h.": (
            lambda f, w, h=1e-5: 2 * by_differences(f, w, h)
        ),
        "Nearly. The error shrinks with h only, and not with its square, so the "
        "difference seems to be one-sided: use f(w + h) and f(w − h).": (
            lambda f, w, h=1e-5: _moved(f, w, h, 0) / h,
            lambda f, w, h=1e-5: _moved(f, w, 0, h) / h,
        ),
        "All entries of w move at once here. A partial derivative moves one of them.": (
            lambda f, w, h=1e-5: ((f(w + h) - f(w - h)) / (2 * h)).expand(w.shape),
            lambda f, w, h=1e-5: (f(w + h) - f(w - h)) / (2 * h),
        ),
        "You step by a number of your own. The step is h.": (
            lambda f, w, h=1e-5: by_differences(f, w)
        ),
    },
)
def by_differences(f: Callable[[Tensor], Tensor], w: Tensor, h: float = 1e-5) -> Tensor:
    return _moved(f, w, h, h) / (2 * h)


class Deep(nn.Module):
    """The reference; a mistake has another of these."""

    hold: Callable[..., Any] = nn.ModuleList
    bias = True
    between = last = staticmethod(torch.relu)
    last = staticmethod(lambda z: z)

    def __init__(self, widths: list[int]):
        super().__init__()
        pairs = pairwise(widths)
        self.layers = self.hold([nn.Linear(a, b, self.bias) for a, b in pairs])

    def forward(self, x: Tensor) -> Tensor:
        for layer in list(self.layers)[:-1]:
            x = self.between(layer(x))
        return self.last(self.layers[-1](x))


def _run(Deep: type[nn.Module], widths: list[int], x: Tensor) -> Any:
    """The number of parameters; where it is right, also their shapes and, with random
    values for them, the output."""
    model = Deep(list(widths))
    if not isinstance(model, nn.Module):
        raise Hint("Deep should be a subclass of nn.Module.")
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters)
    if count != sum((a + 1) * b for a, b in pairwise(widths)):
        return count
    torch.manual_seed(1)
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape))
    return {
        "parameters": count,
        "shapes": [list(p.shape) for p in parameters],
        "output": model(x),
    }


function(
    "deep-net",
    inputs=lambda: [
        (list(widths), torch.randn(9, widths[0]))
        for widths in ([5, 4], [6, 5, 4], [3, 8, 7, 6, 2])
    ],
    call=_run,
    differs="With widths = {widths} it should have {expected} parameters, a weight for "
    "each input and a bias for each output of every layer, but yours has {yours}.",
    mistakes={
        "parameters() finds nothing. Layers in a plain list are not registered; "
        "nn.ModuleList is.": type("Deep", (Deep,), {"hold": list}),
        "No ReLU after the last layer: it would forbid negative outputs.": (
            type("Deep", (Deep,), {"last": Deep.between})
        ),
        "Without a ReLU between them, all your layers together are one linear map.": (
            type("Deep", (Deep,), {"between": Deep.last})
        ),
        "Every layer has a bias for each of its outputs, too.": (
            type("Deep", (Deep,), {"bias": False})
        ),
    },
)(Deep)


def _train(
    train: Callable[..., list[float]],
    start: Tensor,
    goal: Tensor,
    elsewhere: Tensor,
    steps: int,
    lr: float,
) -> Any:
    """What training from `start` towards `goal` returns, validated by the distance
    from `elsewhere`, and the weights that the model has in the end."""
    model = nn.Linear(len(start), 1, bias=False)
    model.weight.data = start[None].clone()

    def distance(to: Tensor) -> Callable[[nn.Linear], Tensor]:
        return lambda model: (model.weight - to).square().sum()

    seen = train(model, distance(goal), distance(elsewhere), steps, lr)
    each = seen if isinstance(seen, (list, tuple)) else [seen]
    return {
        "losses": seen,
        "tensors": any(getattr(value, "requires_grad", False) for value in each),
        "weights": model.weight,
    }


def _ways() -> list[tuple[Tensor, Tensor, Tensor, int, float]]:
    """Ways that pass near the best place; at the first or the last step, too."""
    cases = []
    for steps, lr, share in (
        (12, 0.1, 0.6),
        (7, 0.2, 0.8),
        (5, 0.1, 0.2),
        (4, 0.05, 1),
    ):
        start, goal = torch.randn(3), torch.randn(3) + 4
        cases.append((start, goal, start + share * (goal - start), steps, lr))
    return cases


def _by_hand(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    valid_loss: Callable[[nn.Module], Tensor],
    steps: int,
    lr: float,
    *,
    clear: bool = True,
    before: bool = False,
    keep: Callable[[Any], Any] = deepcopy,
    number: Callable[[Tensor], Any] = Tensor.item,
) -> list[Any]:
    """The reference; a mistake has another of the last arguments."""
    seen: list[Any] = []
    for _ in range(steps):
        if clear:
            model.zero_grad()
        loss(model).backward()
        if before:
            seen.append(number(valid_loss(model)))
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
        if not before:
            seen.append(number(valid_loss(model)))
        if seen[-1] == min(seen):
            kept = keep(model.state_dict())
    model.load_state_dict(kept)
    return seen


def _without_steps(model, loss, valid_loss, steps, lr):
    return [valid_loss(model).item()] * steps


@function(
    "keep-the-best",
    inputs=_ways,
    call=_train,
    differs="With {steps} steps of rate {lr}, the entry {place} should be {expected}, "
    "but yours is {yours}. A step is: p minus lr times its gradient, and the gradient "
    "is that of the training loss.",
    mistakes={
        "Return the validation losses, one for each of the steps, as a list.": (
            lambda *given: train_and_keep(*given)[-1]
        ),
        "Return plain numbers: a tensor would keep the record of its computation "
        "alive.": lambda *given: _by_hand(*given, number=lambda value: value),
        "The weights are where they began. Did you take steps, and change them in "
        "place?": _without_steps,
        "The gradients of earlier steps are still in p.grad. Clear them before "
        "backward.": lambda *given: _by_hand(*given, clear=False),
        "Look at the validation loss after each step, not before it.": (
            lambda *given: _by_hand(*given, before=True)
        ),
        "You follow the gradient of the validation loss. It chooses; the training "
        "loss is what the steps go down.": (
            lambda model, loss, valid_loss, steps, lr: _by_hand(
                model, valid_loss, valid_loss, steps, lr
            )
        ),
        "The model has its last weights, not its best. If you did keep the best ones: "
        "state_dict() returns the very tensors that go on changing, so keep a deep "
        "copy and load it in the end.": lambda *given: _by_hand(
            *given, keep=lambda state: state
        ),
    },
)
def train_and_keep(model, loss, valid_loss, steps, lr):
    return _by_hand(model, loss, valid_loss, steps, lr)
