"""Checks of the chapter, Missing, weak and dominant modalities."""

from __future__ import annotations

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import Hint, exercise, wrong_lines

TAUGHT, ASKED = WORDS = "never taught", "never asked"
OBSERVATIONS = {
    "a new linear head on its frozen features is as good as a model of its own": ASKED,
    "a new linear head on its frozen features is at chance": TAUGHT,
    "it is a backup whose map stands where it started": TAUGHT,
    "with encoders frozen, some practice for the layers behind them cures it": ASKED,
    "its gradient went to zero when the other sense had fitted the training data": (
        TAUGHT
    ),
}


@exercise("never-asked")
def _(answer: dict[str, str]) -> None:
    wrong = wrong_lines(answer, OBSERVATIONS, WORDS)
    if not wrong:
        return
    look = f"Look again at “{wrong[0]}”. "
    if "head" in wrong[0]:
        raise Hint(
            look
            + (
                "A probe asks the features themselves: if it reads well, what there is "
                "to know is in them."
            )
        )
    if "frozen" in wrong[0]:
        raise Hint(
            look
            + (
                "Nothing was added to the encoder, so the knowledge was there before "
                "the cure."
            )
        )
    raise Hint(
        look
        + (
            "An encoder that is not driven, c = 0, does not change: what could be in "
            "its features?"
        )
    )


def _shares(log_variances: Tensor, present: Tensor) -> Tensor:
    scores = torch.where(present.unsqueeze(2), -log_variances, -torch.inf)
    return torch.cat([scores, torch.zeros_like(scores[:, :1])], 1).softmax(1)[:, :-1]


@exercise("multiply-experts")
def _(shares) -> None:
    for size, count, dim in ((6, 2, 3), (7, 4, 2)):
        log_variances = torch.randn(size, count, dim)
        present = torch.rand(size, count) < 0.6
        present[torch.arange(size), torch.randint(count, (size,))] = True
        present[0], present[1, 0] = True, False
        present[1, 1] = True
        right = _shares(log_variances, present)
        got = torch.as_tensor(shares(log_variances.clone(), present.clone()))
        if got.shape != right.shape:
            raise Hint(
                f"Expected shares as [B, M, D] = {list(right.shape)}, got "
                f"{list(got.shape)}."
            )
        scores = torch.where(present.unsqueeze(2), -log_variances, -torch.inf)
        everyone = torch.ones_like(present)
        for mistaken, hint in (
            (
                scores.softmax(1),
                "The shares of those who have seen something sum to less than one.",
            ),
            (
                _shares(-log_variances, present),
                "Those who are unsure count for more in yours: a precision is one "
                "over the variance.",
            ),
            (
                _shares(log_variances, everyone),
                "An absent expert has no share, and the others' shares grow.",
            ),
            (
                _shares(log_variances, everyone) * present.unsqueeze(2),
                "You took the absent expert's share away; now give it to the others, "
                "the prior included.",
            ),
            (
                _shares(log_variances / 2, present),
                "Those are shares by one over the standard deviation; the inverse of "
                "the variance adds up.",
            ),
        ):
            if torch.allclose(got, mistaken, atol=1e-5):
                raise Hint(hint)
        if not torch.allclose(got, right, atol=1e-5):
            raise Hint(
                "A share is the expert's precision over the sum of the precisions of "
                "all who are present, "
                "the prior's, which is one, among them."
            )
    large = torch.tensor(
        [[[200.0], [-200.0]], [[-150.0], [-151.0]], [[180.0], [190.0]]]
    )
    there = torch.ones(3, 2, dtype=torch.bool)
    if not torch.allclose(
        torch.as_tensor(shares(large, there)), _shares(large, there), atol=1e-5
    ):
        raise Hint(
            "Right for moderate numbers; but with logarithms of ±200 an exponential "
            "overflows. Which "
            "function of PyTorch divides exponentials by their sum and never overflows?"
        )


def _phase(
    S: Tensor, s: Tensor, only_a: float, only_b: float, swap: bool = True
) -> float:
    drive = (1 - only_b) * float(s[0]), (1 - only_a) * float(s[1])
    first = 0 if not swap or drive[0] >= drive[1] else 1
    learned = float(s[first] / S[first, first])
    left = drive[1 - first] - (1 - only_a - only_b) * learned * float(S[0, 1])
    return 1 + (drive[first] - drive[1 - first]) / left


@exercise("phase-with-practice")
def _(ratio) -> None:
    problems = []
    for spread in (2.0, 0.6, 1.4):
        rho = 0.2 + 0.4 * float(torch.rand(()))
        S = torch.tensor(
            [[spread**2, rho * spread], [rho * spread, 1.0]], dtype=torch.float64
        )
        problems.append((S, S.sum(1)))
    for S, s in problems:
        for only_a, only_b in ((0.0, 0.0), (0.15, 0.15), (0.3, 0.05), (0.05, 0.25)):
            right = _phase(S, s, only_a, only_b)
            got = float(ratio(S.clone(), s.clone(), only_a, only_b))
            if abs(got - right) < 1e-6 * abs(right):
                continue
            where = (
                f"S = {S.round(decimals=2).tolist()}, only_a = {only_a}, only_b "
                f"= {only_b}"
            )
            drive = (1 - only_b) * float(s[0]), (1 - only_a) * float(s[1])
            late = 0 if drive[0] < drive[1] else 1
            first = 1 - late
            explained = float(s[first] / S[first, first] * S[0, 1])
            lead = drive[first] - drive[late]
            for mistaken, hint in (
                (
                    _phase(S, s, only_a, only_b, swap=False),
                    "Here B is the one that is learned first: compare the drives "
                    "before you name them.",
                ),
                (
                    _phase(S, s, 0.0, 0.0),
                    "Nothing in your formula depends on what is hidden.",
                ),
                (
                    1
                    + abs(float(s[0] - s[1]))
                    / (drive[late] - (1 - only_a - only_b) * explained),
                    "Already at the start a sense is driven only by the samples that "
                    "show it.",
                ),
                (
                    1 + lead / ((1 - only_a - only_b) * (float(s[late]) - explained)),
                    "You left out what the samples do that show the late one alone.",
                ),
                (
                    1 + lead / (drive[late] - explained),
                    "What the early one explains counts only where both are shown.",
                ),
                (
                    _phase(S, s, only_b, only_a),
                    "Samples that show A alone are the ones in which B gets no "
                    "gradient.",
                ),
            ):
                if abs(got - mistaken) < 1e-6 * abs(mistaken):
                    raise Hint(f"For {where}: {hint}")
            raise Hint(
                f"For {where} this gives {got:.4g}, expected {right:.4g}. Write down "
                "e_A and e_B as sums "
                "over the three kinds of samples; then the derivation runs as in the "
                "chapter."
            )


def _blend(
    train: dict,
    valid: dict,
    power: float = 2,
    gap_only: bool = False,
    keep: bool = False,
) -> dict:
    raw = {}
    for task, (before, after) in valid.items():
        gap = (after - train[task][1]) - (0 if gap_only else before - train[task][0])
        gain = before - after
        raw[task] = (gain if keep else max(gain, 0.0)) / gap**power
    return raw


@exercise("blend-the-losses")
def _(blend) -> None:
    for count in (3, 4):
        draws = 0.2 + torch.rand(4, count, dtype=torch.float64)
        names = ["joint", "image", "audio", "text"][:count]
        train = {n: (2.3, 0.5 * float(draws[0, i])) for i, n in enumerate(names)}
        valid = {
            n: (2.4, train[n][1] + 0.4 + 0.5 * float(draws[1, i]))
            for i, n in enumerate(names)
        }
        valid[names[-1]] = 2.4, 2.9  # this one only learned by heart
        right = _blend(train, valid)
        total = sum(right.values())
        got = dict(blend(dict(train), dict(valid)))
        if set(got) != set(names):
            raise Hint(
                f"Expected a weight for each of {names}, got {sorted(map(str, got))}."
            )

        def same(other: dict, got: dict = got) -> bool:
            return all(abs(float(got[n]) - other[n]) < 1e-8 for n in got)

        def scaled(other: dict) -> dict:
            return {n: w / sum(other.values()) for n, w in other.items()}

        if same({n: w / total for n, w in right.items()}):
            continue
        for mistaken, hint in (
            (right, "Divide by their sum, so that the weights sum to one."),
            (scaled(_blend(train, valid, power=1)), "Overfitting counts squared."),
            (
                scaled(_blend(train, valid, gap_only=True)),
                "Overfitting is how far the gap grew, not how large it is in the end.",
            ),
            (
                scaled(_blend(train, valid, keep=True)),
                "A task whose validation loss rose has a negative weight in yours; "
                "it should have none.",
            ),
            (
                scaled(
                    {
                        n: max(train[n][0] - train[n][1], 0)
                        / _gap(train, valid, n) ** 2
                        for n in names
                    }
                ),
                "Generalisation is about the validation loss: training loss falls "
                "for everybody.",
            ),
        ):
            if same(mistaken):
                raise Hint(hint)
        raise Hint(
            "For each task: G is valid before minus valid after, O is (valid − "
            "train) after minus (valid − "
            "train) before, and its weight is G/O² over the sum of all."
        )


def _gap(train: dict, valid: dict, task: str) -> float:
    return (valid[task][1] - train[task][1]) - (valid[task][0] - train[task][0])
