"""Checks of the chapter, Warm-up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import isclose, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtmm_lib.lesson.exercises import Hint, exercise, keeps_lines

SHAPES = {
    "x @ w with x [32, 64] and w [64, 10]": [32, 10],
    "a - m with a [32, 10] and m [32, 1]": [32, 10],
    "a + b with a [32, 1] and b [32]": [32, 32],
    "x.mean(0) with x [32, 64]": [64],
    "g.unsqueeze(1) * h with g [4] and h [5]": [4, 5],
}


@exercise("which-shape")
def _(answer: dict[str, list[int]]) -> None:
    keeps_lines(answer, SHAPES)
    for operation, shape in answer.items():
        if not isinstance(shape, (list, tuple, torch.Size)):
            raise Hint(
                f"A shape is a list such as [32, 10], but that of “{operation}” is "
                f"{shape!r}."
            )
    given = {operation: list(shape) for operation, shape in answer.items()}
    trap, mean, _ = list(SHAPES)[2:]
    if given[trap] in ([32], [32, 1]):
        raise Hint(
            f"Look again at “{trap}”. Write the shapes one above the other, flush "
            "right: the 1 stands above "
            "the 32."
        )
    if given[mean] in ([32], [32, 1], [1, 64]):
        raise Hint(
            f"Look again at “{mean}”: mean(0) takes the mean over axis 0, and that "
            "axis is gone from the "
            "result."
        )
    wrong = [
        operation for operation, shape in SHAPES.items() if given[operation] != shape
    ]
    if wrong:
        raise Hint(f"{len(wrong)} of 5 are not right yet; begin with “{wrong[0]}”.")


@exercise("in-bits")
def _(bits: Callable[[Tensor, Tensor], Tensor]) -> None:
    for _ in range(5):
        logits, y = (
            3 * torch.randn(7, 5, dtype=torch.float64),
            torch.randint(0, 5, (7,)),
        )
        nats = F.cross_entropy(logits, y).item()
        got = _number(bits(logits.clone(), y))

        def near(value: float, got: float = got) -> bool:
            return isclose(got, value, rel_tol=1e-6)

        if near(nats / log(2)):
            continue
        if near(nats):
            raise Hint(
                "These are nats: the logarithm is the natural one. A bit is log 2 of "
                "them."
            )
        if near(nats * log(2)):
            raise Hint(
                "A nat is more than a bit, so the number of bits is the larger one: "
                "divide by log 2."
            )
        if near(7 * nats / log(2)):
            raise Hint("That is the sum over the batch; the mean was asked for.")
        raise Hint(
            f"For logits of ordinary size it should be {nats / log(2):.4f}, but "
            f"yours is {got:.4f}."
        )
    y = torch.randint(0, 5, (7,))
    for shift in (torch.tensor(1e4), torch.tensor([[1e4], [-1e4]] * 3 + [[0.0]])):
        logits = torch.randn(7, 5) + shift
        got = _number(bits(logits.clone(), y))
        if abs(got - F.cross_entropy(logits, y).item() / log(2)) < 1e-3:
            continue
        if shift.dim() == 0:
            raise Hint(
                f"With all logits near 10,000 yours is {got}: e^10000 overflows. "
                "Subtract something first."
            )
        raise Hint(
            "With samples around +10,000 beside others around −10,000 yours is "
            f"{got}. One number for the "
            "whole batch does not do: each sample needs its own."
        )


def _number(value: Tensor | float) -> float:
    value = torch.as_tensor(value)
    if value.numel() != 1:
        raise Hint(
            f"A mean is one number, but yours has the shape {list(value.shape)}."
        )
    return value.item()


@exercise("by-differences")
def _(by_differences: Callable[..., Tensor]) -> None:
    for shape in ((4,), (2, 3)):
        a, w = (torch.randn(shape, dtype=torch.float64) for _ in range(2))

        def f(w: Tensor, a: Tensor = a) -> Tensor:
            return (a * w.sin()).sum() + (w[0] * w[-1]).sum() ** 2

        right = torch.autograd.functional.jacobian(f, w)
        before, h = w.clone(), 1e-3
        got = by_differences(f, w, h)
        if not torch.equal(w, before):
            raise Hint(
                "Your function has changed w. Move a copy, or add a small tensor to it."
            )
        if not isinstance(got, Tensor) or got.shape != w.shape:
            shown = list(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise Hint(
                f"The result needs the shape of w, here {list(w.shape)}; yours: "
                f"{shown}."
            )
        if torch.allclose(got, right, atol=1e-5):
            continue
        if torch.allclose(got, 2 * right, atol=1e-4):
            raise Hint("Twice too large: from w − h to w + h it is a way of 2h.")
        if torch.allclose(got, right, atol=1e-2):
            raise Hint(
                "Nearly. The error shrinks with h only, and not with its square, so "
                "the difference seems to "
                "be one-sided: use f(w + h) and f(w − h)."
            )
        if torch.allclose(got, right.sum().expand(shape), atol=1e-3):
            raise Hint(
                "All entries of w move at once here. A partial derivative moves one "
                "of them."
            )
        raise Hint(
            f"At w = {w.tolist()} the first slope is {right.flatten()[0]:.4f}; yours "
            "is off."
        )


@exercise("deep-net")
def _(Deep: type[nn.Module]) -> None:
    for widths in ([5, 4], [6, 5, 4], [3, 8, 7, 6, 2]):
        model, x = Deep(list(widths)), torch.randn(64, widths[0])
        if not isinstance(model, nn.Module):
            raise Hint("Deep should be a subclass of nn.Module.")
        parameters, wanted = (
            list(model.parameters()),
            sum((a + 1) * b for a, b in pairwise(widths)),
        )
        found = sum(p.numel() for p in parameters)
        if found == 0:
            raise Hint(
                "parameters() finds nothing. Layers in a plain list are not "
                "registered; nn.ModuleList is."
            )
        if found != wanted:
            raise Hint(
                f"Deep({widths}) should have {wanted} parameters, a weight for each "
                "input and a bias for "
                f"each output of every layer, but yours has {found}."
            )
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        if [tuple(weight.shape) for weight, _ in layers] != [
            (b, a) for a, b in pairwise(widths)
        ]:
            raise Hint(
                "The layers should be nn.Linear, registered in the order in which "
                "they are applied."
            )

        def passed(relus: int, z: Tensor = x, layers: list = layers) -> Tensor:
            for i, (weight, bias) in enumerate(layers):
                z = F.linear(z, weight, bias)
                z = z.relu() if i < relus else z
            return z

        got = model(x)
        if torch.allclose(got, passed(relus=len(layers) - 1), atol=1e-6):
            continue
        if torch.allclose(got, passed(relus=len(layers)), atol=1e-6):
            raise Hint(
                "No ReLU after the last layer: it would forbid negative outputs."
            )
        if torch.allclose(got, passed(relus=0), atol=1e-6):
            raise Hint(
                "Without a ReLU between them, all your layers together are one "
                "linear map."
            )
        raise Hint(
            f"For widths {widths} the output is not that of linear layers with a "
            "ReLU between them."
        )


@exercise("keep-the-best")
def _(train: Callable[..., list[float]]) -> None:
    steps, lr = 12, 0.1
    start, goal = torch.randn(3), torch.randn(3) + 4
    # the validation loss is lowest on the way, not at its end
    passed = start + 0.6 * (goal - start)

    def distance(to: Tensor) -> Callable[[nn.Module], Tensor]:
        return lambda model: (model.weight - to).square().sum()

    def walk(clear: bool) -> list[Tensor]:
        w, gradient = [start], torch.zeros(3)
        for _ in range(steps):
            gradient = 2 * (w[-1] - goal) + (0 if clear else gradient)
            w.append(w[-1] - lr * gradient)
        return w

    right = walk(clear=True)
    losses = [(w - passed).square().sum().item() for w in right]
    best = min(range(1, steps + 1), key=losses.__getitem__)
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(start)
    seen = train(model, distance(goal), distance(passed), steps, lr)
    got = model.weight.detach()[0]

    def close(w: Tensor) -> bool:
        return torch.allclose(got, w, atol=1e-5)

    if not isinstance(seen, (list, tuple)) or len(seen) != steps:
        raise Hint(
            f"Return the validation losses, one for each of the {steps} steps, as a "
            "list."
        )
    if not all(isinstance(value, (int, float)) for value in seen):
        raise Hint(
            "Return plain numbers: a tensor would keep the record of its computation "
            "alive."
        )
    if close(start):
        raise Hint(
            "The weights are where they began. Did you take steps, and change them "
            "in place?"
        )
    if abs(seen[2] - (walk(clear=False)[3] - passed).square().sum().item()) < 1e-4:
        raise Hint(
            "The gradients of earlier steps are still in p.grad. Clear them before "
            "backward."
        )
    if abs(seen[0] - losses[0]) < 1e-4:
        raise Hint("Look at the validation loss after each step, not before it.")
    if any(abs(a - b) > 1e-3 for a, b in zip(seen, losses[1:], strict=True)):
        raise Hint(
            f"After one step the validation loss should be {losses[1]:.4f}, but "
            f"yours is {seen[0]:.4f}. A "
            "step is: p minus lr times its gradient, and the gradient is that of the "
            "training loss."
        )
    if close(right[-1]):
        raise Hint(
            "The model has its last weights, not its best. If you did keep the best "
            "ones: state_dict() "
            "returns the very tensors that go on changing, so keep a deep copy and "
            "load it in the end."
        )
    if not close(right[best]):
        raise Hint(
            f"The weights should be those after step {best}, where the validation "
            "loss was lowest."
        )
