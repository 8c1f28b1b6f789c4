"""Checks of the chapter, Adding up losses."""

from __future__ import annotations

import math

import torch

from mtmm_lib.lesson.exercises import Hint, exercise, keeps_lines

FACTORS = {
    "the squared error": 1e6,
    "the mean absolute error": 1e3,
    "the gradient of the squared error at the trunk": 1e6,
    "the gradient of the logarithm of the squared error at the trunk": 1.0,
    "Adam's first step at the trunk, for this task alone": 1.0,
    "the weight that makes up for it in a sum of squared errors": 1e-6,
}


@exercise("what-units-do")
def _(answer: dict[str, float]) -> None:
    keeps_lines(answer, FACTORS)
    wrong = [
        text
        for text, factor in FACTORS.items()
        if not math.isclose(answer[text], factor, rel_tol=1e-6)
    ]
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    if "logarithm" in wrong[0]:
        raise Hint(
            look + "log(c ℓ) = log c + log ℓ: what is the derivative of a constant?"
        )
    if "Adam" in wrong[0]:
        raise Hint(look + "Adam divides a gradient by its own size.")
    if "weight" in wrong[0]:
        raise Hint(look + "The weight has to undo what the unit did to the loss.")
    if "absolute" in wrong[0]:
        raise Hint(look + "Nothing is squared here.")
    if "gradient" in wrong[0]:
        raise Hint(
            look
            + "The head's weights grow along, so the gradient grows as the loss does."
        )
    raise Hint(
        look
        + "All labels and predictions get a thousand times larger. And their square?"
    )


@exercise("learned-noise")
def _(laplace) -> None:
    for tasks in (1, 3):
        losses = torch.rand(tasks, dtype=torch.float64) * 5 + 0.1
        got = laplace(losses.clone())
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Hint("Return two things: the weights [T] and the minimum, a number.")
        weights, least = (torch.as_tensor(part) for part in got)
        if weights.shape != losses.shape or least.numel() != 1:
            raise Hint(
                f"Expected weights [T] = {list(losses.shape)} and one number, got "
                "shapes "
                f"{list(weights.shape)} and {list(least.shape)}."
            )
        if torch.allclose(weights, 0.5 / losses):
            raise Hint(
                "The ½ belongs to the Gaussian. What is −log of the Laplace density?"
            )
        if torch.allclose(weights, losses):
            raise Hint(
                "That is b at its optimum. The loss is divided by b, so what is its "
                "weight?"
            )
        if not torch.allclose(weights, 1 / losses):
            raise Hint(
                "Per number: ℓ/b + log 2b. Set its derivative by b to zero, then "
                "read off the weight."
            )
        right = (1 + (2 * losses).log()).sum()
        for value, hint in (
            (
                (1 + losses.log()).sum(),
                "A constant is missing: the density is divided by 2b, not by b.",
            ),
            (
                (2 * losses).log().sum(),
                "At the minimum ℓ/b is one, for every task. Add it.",
            ),
            (right / tasks, "Sum over tasks; that is the mean."),
        ):
            if torch.allclose(least, value) and not torch.allclose(value, right):
                raise Hint(hint)
        if not torch.allclose(least, right):
            raise Hint(
                "The weights are right. For the minimum, put b = ℓ into Σ ℓ/b + log 2b."
            )


@exercise("slow-tasks")
def _(dynamic_average) -> None:
    for tasks, temperature in ((3, 2.0), (2, 0.5)):
        history = torch.rand(5, tasks, dtype=torch.float64) + 0.5
        for epochs in (0, 1):
            got = torch.as_tensor(
                dynamic_average(history[:epochs].clone(), temperature)
            )
            if got.shape != (tasks,) or not torch.allclose(
                got.double(), torch.ones(tasks).double()
            ):
                raise Hint(
                    f"After {epochs} epochs there is no ratio yet: all weights are one."
                )
        got = torch.as_tensor(dynamic_average(history.clone(), temperature)).double()
        if got.shape != (tasks,):
            raise Hint(f"Expected the weights [T] = {[tasks]}, got {list(got.shape)}.")
        ratio = history[-1] / history[-2]
        right = tasks * (ratio / temperature).softmax(0)
        for mistaken, hint in (
            (right / tasks, "These weights sum to one. They should sum to T."),
            (
                tasks * (1 / ratio / temperature).softmax(0),
                "The ratio is upside down: a slow task's losses hardly fall, and it "
                "should get more.",
            ),
            (
                tasks * (ratio * temperature).softmax(0),
                "A large temperature makes weights equal. Divide.",
            ),
            (
                tasks * (history[-1] / history[0] / temperature).softmax(0),
                "Compare the last epoch with the one before it, not with the first.",
            ),
            (
                tasks * (history[-1] / temperature).softmax(0),
                "That looks at how large the losses are. How fast do they fall?",
            ),
            (
                tasks * (history[1] / history[0] / temperature).softmax(0),
                "Those are the first two epochs. Take the last two.",
            ),
        ):
            if torch.allclose(got, mistaken):
                raise Hint(hint)
        if not torch.allclose(got, right):
            raise Hint(
                "T times the softmax over tasks of (last loss / the one before) / "
                "temperature."
            )


@exercise("fair-tuning")
def _(fair_gain) -> None:
    for settings, draws in ((4, 12), (3, 20)):
        drawn = 0.3 * torch.randn(4, settings, draws, dtype=torch.float64)
        valid_a, valid_b = drawn[:2] + torch.rand(2, settings, 1, dtype=torch.float64)
        # Test data disagree with validation data about the best setting, and draws are
        # alike for both ways.
        shared, ladder = torch.randn(draws), torch.arange(settings).unsqueeze(1)
        test_a, test_b = drawn[2:] + shared
        test_a[valid_a.mean(1).argsort(descending=True)] += 0.2 * ladder
        test_b[valid_b.mean(1).argsort(descending=True)] += 0.3 * ladder
        got = fair_gain(
            valid_a.clone(), test_a.clone(), valid_b.clone(), test_b.clone()
        )
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Hint("Return two numbers: the mean and its standard error.")
        mean, error = (float(value) for value in got)
        a, b = test_a[valid_a.mean(1).argmin()], test_b[valid_b.mean(1).argmin()]
        right, spread = float((b - a).mean()), float((b - a).std())
        peeked = float(test_b.mean(1).min() - test_a.mean(1).min())
        each = float(
            (test_b[valid_b.argmin(0)[0]] - test_a[valid_a.argmin(0)[0]]).mean()
        )
        for value, hint in (
            (-right, "The sign: how much smaller is the loss of way a?"),
            (
                peeked,
                "You chose the setting by the test losses, which must not choose "
                "anything.",
            ),
            (
                float(test_b.amin(0).mean() - test_a.amin(0).mean()),
                "The best of each draw is no setting: choose one for all draws, by "
                "validation losses.",
            ),
            (
                float((test_b - test_a).mean()),
                "Choose a setting for each way; you averaged over all.",
            ),
            (
                each,
                "One draw has chosen the setting: take the mean over all draws for "
                "tuning.",
            ),
        ):
            if math.isclose(mean, value, rel_tol=1e-9) and not math.isclose(
                value, right, rel_tol=1e-9
            ):
                raise Hint(hint)
        if not math.isclose(mean, right, rel_tol=1e-9):
            raise Hint(
                "For each way: the setting with the least mean validation loss, then "
                "its test losses; then "
                "the mean of b − a."
            )
        apart = float((a.var() / draws + b.var() / draws).sqrt())
        for value, hint in (
            (
                spread,
                "That is the differences' standard deviation. Divide by the root of "
                "their number.",
            ),
            (
                apart,
                "The draws are paired: take the differences first, then their spread.",
            ),
            (
                float((b - a).std(correction=0)) / draws**0.5,
                "In the deviation divide by n − 1, since the mean was estimated from "
                "the same draws.",
            ),
        ):
            if math.isclose(error, value, rel_tol=1e-9):
                raise Hint(hint)
        if not math.isclose(error, spread / draws**0.5, rel_tol=1e-9):
            raise Hint(
                "The mean is right. Its standard error is the differences' deviation "
                "over √n."
            )


@exercise("supported-points")
def _(supported) -> None:
    for scale in (1.0, 7.0):
        # Corners of a convex curve, each the lowest for a wide range of weights; points
        # beyond its chords.
        slopes = torch.tensor([4.0, 1.6, 0.7, 0.2], dtype=torch.float64)
        steps = 0.5 + torch.rand(4, dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        first = torch.cat([zero, steps.cumsum(0)])
        second = torch.cat([zero, (-slopes * steps).cumsum(0)])
        corners = torch.stack([first, second - second.min()], 1) + 0.2
        between = (corners[:-1] + corners[1:]) / 2 + 0.05 * (
            corners[:-1] - corners[1:]
        ).abs()
        points = torch.cat([corners, between]) * scale
        truth = torch.cat([torch.ones(5), torch.zeros(4)]).bool()
        order = torch.randperm(9)
        points, truth = points[order], truth[order]
        got = torch.as_tensor(supported(points.clone()))
        if got.shape != (9,) or got.dtype != torch.bool:
            raise Hint(f"Expected bools [P] = [9], got {got.dtype} {list(got.shape)}.")
        if got.all():
            raise Hint(
                "Nothing is out of reach, you say. A point that no other beats in "
                "both losses is on the "
                "front. But has it a supporting line?"
            )
        ends = (points[:, 0] == points[:, 0].min()) | (
            points[:, 1] == points[:, 1].min()
        )
        if got.equal(ends):
            raise Hint(
                "Only the ends? This front also has corners in between that some "
                "weights reach."
            )
        if got.equal(~truth):
            raise Hint("Turned round: those are the points that no weights reach.")
        equal = torch.zeros(9, dtype=torch.bool)
        equal[points.sum(1).argmin()] = True
        if got.equal(equal):
            raise Hint("That is what equal weights find. Try others.")
        if not got.equal(truth):
            raise Hint(
                "A point is supported if it has the least w ℓ₁ + (1 − w) ℓ₂ for some "
                "w in (0, 1)."
            )
