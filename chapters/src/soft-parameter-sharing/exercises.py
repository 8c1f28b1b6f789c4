"""Exercises of the lesson "Soft parameter sharing"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, real, whole, with_gradient

lines(
    "tether-by-hand",
    {
        "even evidence, λ = 3: the doctor who said 0": 3,
        "even evidence, λ = 3: the doctor who said 8": 5,
        "even evidence, λ without end: all of them": 4,
        "evidence 2, 1 and 1, λ without end: all of them": 3,
    },
    others=(0, 1, 2, 3, 4, 5, 6, 8, 8 / 3),
    mistakes={
        "“{line}”: that divides the opinion itself, as a pull to zero does. Divide its "
        "deviation from the mean 4.": lambda line, given, right: (
            "doctor" in line and given in (0, 2)
        ),
        "“{line}”: the deviation is divided by 1 + λ = 4, and then the mean 4 is still "
        "to be added.": lambda line, given, right: "doctor" in line,
        "“{line}”: as if four patients were asked, two of whom say 0.": (
            lambda line, given, right: "2, 1 and 1" in line
        ),
        "“{line}”: with even evidence the mean of the opinions stays where it is.": (
            lambda line, given, right: True
        ),
    },
)

lines(
    "tether-limits",
    {
        "the solution at the best λ, tasks unequal, labels noisy": "between",
        "the solution at the best λ, labels without noise": "separate",
        "the best λ, with four times the labels": "down",
        "the best λ, with noisier labels": "up",
        "the best λ, with tasks that are less alike": "down",
        "the best λ (same ρ, length one), with twice as many tasks": "stays",
    },
    words=("separate", "pooled", "between", "up", "down", "stays"),
    mistakes={
        "Look again at “{line}”. The bottom of the valley lies at neither end, unless "
        "tasks are equal or labels clean.": (
            lambda line, given, right: right == "between"
        ),
        "Look again at “{line}”. Without noise there is nothing to shrink away: λ* is "
        "zero.": lambda line, given, right: right == "separate",
        "Look again at “{line}”. Noise and signal of the deviations carry the same "
        "factor (T − 1)/T. What is left?": lambda line, given, right: "twice" in line,
        "Look again at “{line}”. The best strength is v over 1 − ρ, with v = σ²D/n: "
        "what happens to the two?": lambda line, given, right: True,
    },
)

lines(
    "when-it-hurts",
    {
        "alone, pooled or tether, at ρ = 1": "pooled",
        "alone, pooled or tether, at ρ = 0.75": "tether",
        "alone, pooled or tether, at ρ = 0": "tether",
        "tether or ridge, at ρ = 0.95": "tether",
        "tether or ridge, at ρ = 0": "ridge",
        "ridge or both, at ρ = 0.75": "both",
    },
    words=("alone", "pooled", "tether", "ridge", "both"),
    mistakes={
        "“{line}”: equal rules are one rule. Any room between them costs a little.": (
            lambda line, given, right: right == "pooled"
        ),
        "“{line}”: among strangers the tether only shortens, and the ridge does that "
        "better.": lambda line, given, right: right == "ridge",
        "“{line}”: where rules are alike there is something to learn from the other "
        "task, and a ridge alone cannot.": lambda line, given, right: (
            right == "both" or "0.95" in line
        ),
        "“{line}”: on average a tether of a chosen strength beat both ends.": (
            lambda line, given, right: True
        ),
    },
)


def _problems() -> list[tuple[list[Tensor], list[Tensor], float]]:
    """Tasks with as many samples as dimensions, and some with many more."""
    cases = []
    for tasks, dim in ((2, 3), (3, 4), (4, 2)):
        sizes = [5 * dim, *(whole(dim + 1, 9 * dim) for _ in range(tasks - 1))]
        xs = [torch.randn(n, dim) for n in sizes]
        cases.append((xs, [torch.randn(n) for n in sizes], real(0.5, 2)))
    return cases


def _solution(
    xs: list[Tensor],
    ys: list[Tensor],
    strength: float,
    *,
    springs: Callable[[int], Tensor] = lambda T: torch.eye(T) - 1 / T,
    over: Callable[[Tensor], int] = len,
) -> Tensor:
    """The reference; a mistake has other springs between its T tasks, or another
    number to divide a task's products by."""
    tasks, dim = len(xs), xs[0].shape[1]
    moments = torch.block_diag(*(x.T @ x / over(x) for x in xs))
    products = torch.cat([x.T @ y / over(x) for x, y in zip(xs, ys, strict=True)])
    held = torch.kron(springs(tasks).to(moments), torch.eye(dim).to(moments))
    return torch.linalg.solve(moments + strength * held, products).view(tasks, dim)


@function(
    "solve-tethered",
    inputs=_problems,
    differs="These rules do not solve the equations. For one task they read S θ + λ (θ "
    "− mean) = b: which multiples of θ of this task, and of the others, stand on the "
    "left?",
    mistakes={
        "That pulls every task to zero. The tether pulls to their mean.": (
            lambda xs, ys, strength: _solution(xs, ys, strength, springs=torch.eye)
        ),
        "Your tether runs between all pairs of tasks, T times as strong together as to "
        "the mean.": lambda xs, ys, strength: tethered_rules(
            xs, ys, strength * len(xs)
        ),
        "Each task's loss is a mean: divide its products by its own number of "
        "samples.": lambda xs, ys, strength: _solution(
            xs, ys, strength, over=lambda x: 1
        ),
        "You divide by the samples of all tasks. Each task's loss is the mean over its "
        "own.": lambda xs, ys, strength: _solution(
            xs, ys, strength, over=lambda x: sum(map(len, xs))
        ),
        "The sign: a tether that pushes the tasks apart.": (
            lambda xs, ys, strength: tethered_rules(xs, ys, -strength)
        ),
    },
)
def tethered_rules(xs: list[Tensor], ys: list[Tensor], strength: float) -> Tensor:
    return _solution(xs, ys, strength)


@function(
    "best-strength",
    inputs=lambda: [
        (
            torch.randn(tasks, dim) * (0.5 + torch.rand(tasks, 1)) + 1,
            real(0.5, 1.5),
            whole(10, 90),
        )
        for tasks, dim in ((2, 5), (3, 4), (6, 9), (5, 2))
    ],
    differs="With noise = {noise} and samples = {samples} it should be {expected}, but "
    "yours is {yours}. Signal is the mean squared distance of the true rules from "
    "their own mean.",
    mistakes={
        "Part of the noise is in the mean: v (T − 1)/T is left for the deviations.": (
            lambda rules, noise, samples: (
                best_strength(rules, noise, samples) * len(rules) / (len(rules) - 1)
            )
        ),
        "The noise of the deviations is v (T − 1)/T; v/2 is that of two tasks.": (
            lambda rules, noise, samples: (
                best_strength(rules, noise, samples) * len(rules) / (len(rules) - 1) / 2
            )
        ),
        "The noise is a standard deviation; v holds its square.": (
            lambda rules, noise, samples: best_strength(rules, noise**0.5, samples)
        ),
        "The signal is a mean over tasks; you added them up.": (
            lambda rules, noise, samples: (
                best_strength(rules, noise, samples) / len(rules)
            )
        ),
        "The signal is a squared distance, a sum over the numbers of a rule; you took "
        "their mean.": lambda rules, noise, samples: (
            best_strength(rules, noise, samples) * rules.shape[1]
        ),
        "Signal is how far the rules are from their own mean, not from zero.": (
            lambda rules, noise, samples: (
                best_strength(rules, noise, samples)
                * (rules - rules.mean(0)).square().sum()
                / rules.square().sum()
            )
        ),
        "Noise over signal, not signal over noise: a strong tether is for noisy "
        "tasks.": lambda rules, noise, samples: (
            1 / best_strength(rules, noise, samples)
        ),
    },
)
def best_strength(rules: Tensor, noise: float, samples: int) -> Tensor:
    tasks, dim = rules.shape
    signal = (rules - rules.mean(0)).square().sum(1).mean()
    return noise**2 * dim / samples * (tasks - 1) / tasks / signal


def _kept(rho: float, v: float) -> float:
    """The error with tether and ridge at their best, where no tether is negative."""
    signals = ((1 + rho) / 2, (1 - rho) / 2)
    return sum(v / 2 * signal / (v / 2 + signal) for signal in signals)


def _tethered(rho: float, v: float) -> float:
    """The error of the deviations with the best tether, and no ridge."""
    return v / 2 * (1 - rho) / (v + 1 - rho)


@function(
    "what-was-shared",
    inputs=lambda: [
        (real(0.3, 0.9), real(0.1, 0.6)),
        (real(0.3, 0.9), real(1, 3)),
        (1.0, real(0.2, 0.8)),
        (0.95, 0.4),
        (0.0, real(0.2, 0.8)),
        (real(-0.9, -0.3), real(0.2, 0.8)),
        (-1.0, 0.4),
    ],
    mistakes={
        "Below ρ = 0 the best tether is none, so that nothing was shared: 0.": (
            lambda rho, v: v / (1 + v) - _kept(rho, v)
        ),
        "That is the error with both. Asked for is how much less it is than the "
        "ridge's.": lambda rho, v: _kept(max(rho, 0), v),
        "You compare with working alone. The control is the ridge, v/(1 + v).": (
            lambda rho, v: v - _kept(max(rho, 0), v)
        ),
        "That is the tether without a ridge. Give it one.": lambda rho, v: (
            0.0 if rho <= 0 else v / (1 + v) - v / 2 - _tethered(rho, v)
        ),
        "Each of the two parts has half of the noise, v/2.": lambda rho, v: (
            0.0
            if rho <= 0
            else v / (1 + v)
            - sum(v * b / (v + b) for b in ((1 + rho) / 2, (1 - rho) / 2))
        ),
        "The sign: what the ridge costs, less what both cost.": (
            lambda rho, v: -shared(rho, v)
        ),
    },
)
def shared(rho: float, v: float) -> float:
    return 0.0 if rho <= 0 else v / (1 + v) - _kept(rho, v)


def _trunks() -> list[tuple[list[list[Tensor]], float]]:
    shapes = [(3, 4), (3,), (2, 3)]
    return [
        ([[torch.randn(shape) for shape in shapes] for _ in range(tasks)], real(0.2, 3))
        for tasks in (2, 3, 5)
    ]


def _with_slope(
    answer: Callable[..., Tensor], trunks: list[list[Tensor]], strength: float
) -> dict[str, Tensor]:
    """The value, and its gradient for the first trunk's first parameter."""
    return with_gradient(of=0)(
        lambda first: answer([[first, *trunks[0][1:]], *trunks[1:]], strength),
        trunks[0][0],
    )


def _charged(trunks: list[list[Tensor]], of: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum over parameters of a function of the trunks' tensors in a stack."""
    rows = zip(*trunks, strict=True)
    return torch.stack([of(torch.stack(row)) for row in rows]).sum()


@function(
    "tether-trunks",
    inputs=_trunks,
    call=_with_slope,
    differs="The penalty or its gradient differs. Take one parameter of all trunks, "
    "their mean, and the squared distances from it; then add up over parameters.",
    mistakes={
        "Where is the gradient? Training has to move the trunks.": (
            lambda trunks, strength: penalty(trunks, strength).detach()
        ),
        "Distances between all pairs of trunks add up to T times too much.": (
            lambda trunks, strength: len(trunks) * penalty(trunks, strength)
        ),
        "Squared distances are added up here, not averaged.": (
            lambda trunks, strength: (
                strength * _charged(trunks, lambda p: (p - p.mean(0)).square().mean())
            )
        ),
        "The mean is over trunks, for each parameter by itself.": (
            lambda trunks, strength: (
                strength * _charged(trunks, lambda p: (p - p.mean()).square().sum())
            )
        ),
        "That pulls to zero: it is weight decay.": lambda trunks, strength: (
            strength * _charged(trunks, lambda p: p.square().sum())
        ),
        "The distances are squared, not absolute.": lambda trunks, strength: (
            strength * _charged(trunks, lambda p: (p - p.mean(0)).abs().sum())
        ),
        "Where is the strength?": lambda trunks, strength: penalty(trunks, 1.0),
    },
)
def penalty(trunks: list[list[Tensor]], strength: float) -> Tensor:
    return strength * _charged(trunks, lambda p: (p - p.mean(0)).square().sum())


@function(
    "one-way",
    inputs=lambda: [
        (torch.randn(n, dim), torch.randn(n), torch.randn(dim), real(0.3, 2))
        for n, dim in ((9, 3), (4, 6), (30, 2))
    ],
    differs="At the minimum S θ + λ (θ − a) = Xᵀy/n. Which part belongs on the right?",
    mistakes={
        "That pulls to zero. The anchor is missing on the right-hand side.": (
            lambda x, y, anchor, strength: anchored(x, y, 0 * anchor, strength)
        ),
        "The squared error is a mean: divide by the number of samples.": (
            lambda x, y, anchor, strength: anchored(x, y, anchor, strength / len(x))
        ),
        "On the right the anchor comes times λ, as on the left.": (
            lambda x, y, anchor, strength: anchored(x, y, anchor / strength, strength)
        ),
        "The sign: a spring that pushes away from the anchor.": (
            lambda x, y, anchor, strength: anchored(x, y, -anchor, strength)
        ),
    },
)
def anchored(x: Tensor, y: Tensor, anchor: Tensor, strength: float) -> Tensor:
    S = x.T @ x / len(x) + strength * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(S, x.T @ y / len(x) + strength * anchor)
