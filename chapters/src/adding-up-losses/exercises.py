"""Exercises of the lesson "Adding up losses"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, real

lines(
    "what-units-do",
    {
        "the squared error": 1e6,
        "the mean absolute error": 1e3,
        "the gradient of the squared error at the trunk": 1e6,
        "the gradient of the logarithm of the squared error at the trunk": 1.0,
        "Adam's first step at the trunk, for this task alone": 1.0,
        "the weight that makes up for it in a sum of squared errors": 1e-6,
    },
    others=(1e3, 1e6, 1, 1e-3, 1e-6, 0),
    mistakes={
        "Look again at “{line}”. log(c ℓ) = log c + log ℓ: what is the derivative of a "
        "constant?": lambda line, given, right: "logarithm" in line,
        "Look again at “{line}”. Adam divides a gradient by its own size.": (
            lambda line, given, right: "Adam" in line
        ),
        "Look again at “{line}”. The weight has to undo what the unit did to the "
        "loss.": lambda line, given, right: "weight" in line,
        "Look again at “{line}”. Nothing is squared here.": (
            lambda line, given, right: "absolute" in line
        ),
        "Look again at “{line}”. The head's weights grow along, so the gradient grows "
        "as the loss does.": lambda line, given, right: "gradient" in line,
        "Look again at “{line}”. All labels and predictions get a thousand times "
        "larger. And their square?": lambda line, given, right: True,
    },
)


@function(
    "learned-noise",
    inputs=lambda: [(0.1 + 5 * torch.rand(tasks),) for tasks in (3, 1, 5)],
    mistakes={
        "The ½ belongs to the Gaussian. What is −log of the Laplace density?": (
            lambda losses: (0.5 / losses, 0.5 * (1 + losses.log()).sum()),
            lambda losses: (0.5 / losses, laplace(losses)[1]),
        ),
        "That is b at its optimum. The loss is divided by b, so what is its weight?": (
            lambda losses: (losses, laplace(losses)[1])
        ),
        "A constant is missing: the density is divided by 2b, not by b.": (
            lambda losses: (1 / losses, (1 + losses.log()).sum())
        ),
        "At the minimum ℓ/b is one, for every task. Add it.": (
            lambda losses: (1 / losses, (2 * losses).log().sum())
        ),
        "Sum over tasks; that is the mean.": (
            lambda losses: (1 / losses, laplace(losses)[1] / len(losses))
        ),
        "Two things were asked for: first the weights [T], then the minimum.": (
            lambda losses: laplace(losses)[0],
            lambda losses: laplace(losses)[1],
            lambda losses: laplace(losses)[::-1],
        ),
    },
)
def laplace(losses: Tensor) -> tuple[Tensor, Tensor]:
    return 1 / losses, (1 + (2 * losses).log()).sum()


def _average(
    history: Tensor,
    temperature: float,
    *,
    ratio: Callable[[Tensor], Tensor] = lambda history: history[-1] / history[-2],
    weights: Callable[[Tensor, float], Tensor] = lambda r, T: (r / T).softmax(0),
    least: int = 2,
) -> Tensor:
    """The reference; a mistake has another ratio, other weights, or waits for another
    number of epochs."""
    if len(history) < least:
        return torch.ones(history.shape[1])
    return history.shape[1] * weights(ratio(history), temperature)


@function(
    "slow-tasks",
    inputs=lambda: [
        (torch.rand(epochs, tasks) + 0.5, temperature)
        for epochs, tasks, temperature in (
            (5, 3, 2.0),
            (4, 2, 0.5),
            (2, 3, real(0.5, 3)),
            (1, 3, 2.0),
            (0, 2, 1.0),
            (3, 4, 0.3),
        )
    ],
    differs="With history = {history} and temperature = {temperature}, the weight at "
    "{place} should be {expected}, but yours is {yours}: T times the softmax over "
    "tasks of (last loss / the one before) / temperature.",
    mistakes={
        "With fewer than two epochs there is no ratio yet: all weights are one.": (
            lambda history, temperature: _average(history, temperature, least=0),
            lambda history, temperature: _average(history, temperature, least=1),
        ),
        "These weights sum to one. They should sum to T.": (
            lambda history, temperature: (
                dynamic_average(history, temperature) / history.shape[1]
            ),
            lambda history, temperature: _average(
                history,
                temperature,
                weights=lambda r, T: (r / T).softmax(0) / len(r),
            ),
        ),
        "The ratio is upside down: a slow task's losses hardly fall, and it should get "
        "more.": lambda history, temperature: _average(
            history, temperature, ratio=lambda history: history[-2] / history[-1]
        ),
        "A large temperature makes weights equal. Divide.": (
            lambda history, temperature: _average(
                history, temperature, weights=lambda r, T: (r * T).softmax(0)
            )
        ),
        "Compare the last epoch with the one before it, not with the first.": (
            lambda history, temperature: _average(
                history, temperature, ratio=lambda history: history[-1] / history[0]
            )
        ),
        "That looks at how large the losses are. How fast do they fall?": (
            lambda history, temperature: _average(
                history, temperature, ratio=lambda history: history[-1]
            )
        ),
        "Those are the first two epochs. Take the last two.": (
            lambda history, temperature: _average(
                history, temperature, ratio=lambda history: history[1] / history[0]
            )
        ),
    },
)
def dynamic_average(history: Tensor, temperature: float) -> Tensor:
    return _average(history, temperature)


def _tunings() -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Test losses disagree with validation losses about the best setting, and draws
    are alike for both ways."""
    cases = []
    for settings, draws in ((4, 12), (3, 20), (5, 3), (4, 9), (4, 7)):
        noise = 0.3 * torch.randn(4, settings, draws)
        valid_a, valid_b = noise[:2] + torch.rand(2, settings, 1)
        test_a, test_b = noise[2:] + torch.randn(draws)
        ladder = torch.arange(settings)[:, None]
        test_a[valid_a.mean(1).argsort(descending=True)] += 0.2 * ladder
        test_b[valid_b.mean(1).argsort(descending=True)] += 0.3 * ladder
        cases.append((valid_a, test_a, valid_b, test_b))
    return cases


def _tuned(valid: Tensor, test: Tensor) -> Tensor:
    return test[valid.mean(1).argmin()]


def _gain(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return (b - a).mean(), (b - a).std() / len(a) ** 0.5


def _with_error(
    error: Callable[[Tensor, Tensor], Tensor],
) -> Callable[..., tuple[Tensor, Tensor]]:
    """A mistake in the standard error alone."""

    def mistake(valid_a, test_a, valid_b, test_b):
        a, b = _tuned(valid_a, test_a), _tuned(valid_b, test_b)
        return (b - a).mean(), error(a, b)

    return mistake


@function(
    "fair-tuning",
    inputs=_tunings,
    differs="Entry {place} should be {expected}, but yours is {yours}. For each way: "
    "the setting with the least mean validation loss, then its test losses; then the "
    "mean of b − a, and its standard error.",
    mistakes={
        "The sign: how much smaller is the loss of way a?": (
            lambda valid_a, test_a, valid_b, test_b: fair_gain(
                valid_b, test_b, valid_a, test_a
            )
        ),
        "You chose the setting by the test losses, which must not choose anything.": (
            lambda valid_a, test_a, valid_b, test_b: fair_gain(
                test_a, test_a, test_b, test_b
            )
        ),
        "You compare validation losses. They have chosen, and flatter; the test losses "
        "judge.": lambda valid_a, test_a, valid_b, test_b: fair_gain(
            valid_a, valid_a, valid_b, valid_b
        ),
        "The best of each draw is no setting: choose one for all draws.": (
            lambda valid_a, test_a, valid_b, test_b: _gain(
                test_a.amin(0), test_b.amin(0)
            ),
            lambda valid_a, test_a, valid_b, test_b: _gain(
                test_a.gather(0, valid_a.argmin(0)[None])[0],
                test_b.gather(0, valid_b.argmin(0)[None])[0],
            ),
        ),
        "Choose a setting for each way; you averaged over all.": (
            lambda valid_a, test_a, valid_b, test_b: _gain(
                test_a.mean(0), test_b.mean(0)
            )
        ),
        "One draw has chosen the setting: take the mean over all draws for tuning.": (
            lambda valid_a, test_a, valid_b, test_b: fair_gain(
                valid_a[:, :1], test_a, valid_b[:, :1], test_b
            )
        ),
        "Each way has its own best setting; way a has chosen for both.": (
            lambda valid_a, test_a, valid_b, test_b: fair_gain(
                valid_a, test_a, valid_a, test_b
            )
        ),
        "That is the differences' standard deviation. Divide by the root of their "
        "number.": _with_error(lambda a, b: (b - a).std()),
        "The draws are paired: take the differences first, then their spread.": (
            _with_error(lambda a, b: ((a.var() + b.var()) / len(a)).sqrt())
        ),
        "In the deviation divide by n − 1, since the mean was estimated from the same "
        "draws.": _with_error(lambda a, b: (b - a).std(correction=0) / len(a) ** 0.5),
    },
)
def fair_gain(
    valid_a: Tensor, test_a: Tensor, valid_b: Tensor, test_b: Tensor
) -> tuple[Tensor, Tensor]:
    return _gain(_tuned(valid_a, test_a), _tuned(valid_b, test_b))


def _lowest(points: Tensor, weights: int = 1_000) -> Tensor:
    """How many of so many weights find each point."""
    w = torch.linspace(0, 1, weights + 2)[1:-1, None].double()
    sums = w * points[:, 0] + (1 - w) * points[:, 1]
    return sums.argmin(1).bincount(minlength=len(points))


def _fronts() -> list[tuple[Tensor]]:
    """Fronts of random points, in no order, of which some can be had by few weights
    and some by none; which those are a thousand weights tell as well as many more."""
    cases: list[tuple[Tensor]] = []
    while len(cases) < 6:
        x, y = torch.rand(2, 11).sort().values
        points = torch.stack([x, y.flip(0)], 1) * (1, 7, 0.3)[len(cases) % 3]
        found, exact = _lowest(points), _lowest(points, 30_000)
        few = found[found > 0].min()
        if 4 < few < 100 and ((found > 0) == (exact > 0)).all():
            cases.append((points[torch.randperm(11)],))
    return cases


def _below_neighbours(points: Tensor) -> Tensor:
    """Whether each point is an end, or lies below the line through its neighbours."""
    order = points[:, 0].argsort()
    p = points[order]
    there, back = p[2:] - p[1:-1], p[:-2] - p[1:-1]
    found = torch.ones(len(p), dtype=torch.bool)
    found[order[1:-1]] = there[:, 0] * back[:, 1] > there[:, 1] * back[:, 0]
    return found


@function(
    "supported-points",
    inputs=_fronts,
    differs="The answer for point {place} is wrong. A point is supported if it has the "
    "least w ℓ₁ + (1 − w) ℓ₂ for some w in (0, 1).",
    mistakes={
        "Nothing is out of reach, you say. A point that no other beats in both losses "
        "is on the front. But has it a supporting line?": (
            lambda points: torch.ones(len(points), dtype=torch.bool)
        ),
        "Only the ends? Some fronts also have points in between that some weights "
        "reach.": lambda points: (points == points.amin(0)).any(1),
        "Turned round: those are the points that no weights reach.": (
            lambda points: ~supported(points)
        ),
        "That is what equal weights find. Try others.": (
            lambda points: _lowest(points, 1) > 0
        ),
        "A few weights miss the points that only a small range of them finds. Try a "
        "thousand.": (
            lambda points: _lowest(points, 5) > 0,
            lambda points: _lowest(points, 9) > 0,
            lambda points: _lowest(points, 19) > 0,
        ),
        "A point may lie below the line through its neighbours and yet above one "
        "through points further away: compare with all.": _below_neighbours,
    },
)
def supported(points: Tensor) -> Tensor:
    return _lowest(points) > 0
