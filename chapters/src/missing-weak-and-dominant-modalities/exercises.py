"""Exercises of the lesson "Missing, weak and dominant modalities"."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mtmm_lib.lesson.exercises import function, lines, real

lines(
    "never-asked",
    {
        "a new linear head on its frozen features is as good as a model of its own": (
            "never asked"
        ),
        "a new linear head on its frozen features is at chance": "never taught",
        "it is a backup whose map stands where it started": "never taught",
        "with encoders frozen, some practice for the layers behind them cures it": (
            "never asked"
        ),
        "its gradient went to zero when the other sense had fitted the training "
        "data": "never taught",
    },
    words=("never taught", "never asked"),
    mistakes={
        "Look again at “{line}”. A probe asks the features themselves: if it reads "
        "well, what there is to know is in them.": (
            lambda line, given, right: "head" in line
        ),
        "Look again at “{line}”. Nothing was added to the encoder, so the knowledge "
        "was there before the cure.": lambda line, given, right: "frozen" in line,
        "Look again at “{line}”. An encoder that is not driven, c = 0, does not "
        "change: what could be in its features?": lambda line, given, right: True,
    },
)


def _experts() -> list[tuple[Tensor, Tensor]]:
    """All present, one alone, some; then logarithms of which no exponential fits into
    a float."""
    cases = []
    for size, count, dim in ((6, 2, 3), (7, 4, 2), (3, 3, 1), (2, 1, 2)):
        present = torch.rand(size, count) < 0.6
        present[torch.arange(size), torch.randint(count, (size,))] = True
        present[0] = True
        cases.append((torch.randn(size, count, dim), present))
    large = [[[200.0], [-200.0]], [[-150.0], [-151.0]], [[180.0], [190.0]]]
    cases.append((torch.tensor(large), torch.ones(3, 2, dtype=torch.bool)))
    return cases


@function(
    "multiply-experts",
    inputs=_experts,
    differs="A share is the expert's precision over the sum of the precisions of all "
    "who are present, the prior's, which is one, among them.",
    mistakes={
        "The shares of those who have seen something sum to less than one: the prior "
        "has one, too.": lambda log_variances, present: torch.where(
            present[..., None], -log_variances, -torch.inf
        ).softmax(1),
        "Those who are unsure count for more in yours: a precision is one over the "
        "variance.": lambda log_variances, present: shares(-log_variances, present),
        "An absent expert has no share, and the others' shares grow.": (
            lambda log_variances, present: shares(log_variances, present | True)
        ),
        "You took the absent expert's share away; now give it to the others, the prior "
        "included.": lambda log_variances, present: (
            shares(log_variances, present | True) * present[..., None]
        ),
        "Those are shares by one over the standard deviation; the inverse of the "
        "variance adds up.": lambda log_variances, present: shares(
            log_variances / 2, present
        ),
        "Right for moderate numbers; but with logarithms of ±200 an exponential "
        "overflows. Which function of PyTorch divides exponentials by their sum and "
        "never overflows?": lambda log_variances, present: (
            (precision := (-log_variances).exp() * present[..., None])
            / (1 + precision.sum(1, keepdim=True))
        ),
    },
)
def shares(log_variances: Tensor, present: Tensor) -> Tensor:
    scores = torch.where(present[..., None], -log_variances, -torch.inf)
    return torch.cat([scores, torch.zeros_like(scores[:, :1])], 1).softmax(1)[:, :-1]


def _phase(
    S: Tensor,
    s: Tensor,
    only_a: float,
    only_b: float,
    *,
    leads: Callable[[list[float], Tensor], bool] = lambda drive, S: drive[0] < drive[1],
    from_start: bool = False,
    both: Callable[[float], float] = lambda share: share,
    alone: bool = True,
    spread: Callable[[Tensor, int], Tensor] = lambda S, first: S[first, first],
) -> float:
    """The reference; a mistake has another of the last arguments: whether B leads,
    whether all samples drive from the start, the share that shows both, whether the
    late one is driven by samples that show it alone, the variance of the first."""
    shown = 1 - only_b, 1 - only_a  # how often A, and B, is there
    drive = [share * float(x) for share, x in zip(shown, s, strict=True)]
    first = int(leads(drive, S))
    late = 1 - first
    share = both(1 - only_a - only_b)
    explained = share * float(s[first] / spread(S, first) * S[0, 1])
    left = (drive[late] if alone else share * float(s[late])) - explained
    lead = float((s[0] - s[1]).abs()) if from_start else drive[first] - drive[late]
    return 1 + lead / left


def _senses() -> list[tuple[Tensor, Tensor, float, float]]:
    """Covariances of two senses with each other and with a target, where the later one
    is learned in less than twenty times the time of the first."""
    cases: list[tuple[Tensor, Tensor, float, float]] = []
    hidden = ((0.0, 0.0), (0.15, 0.15), (0.3, 0.05), (0.05, 0.25), (0.2, 0.0))
    while len(cases) < 12:
        x = torch.randn(2, 3)
        S = x @ x.T + 0.3 * torch.eye(2)
        s = S @ torch.tensor([real(-0.5, 2), real(-0.5, 2)])
        case = (S, s, *hidden[len(cases) % 5])
        a, b = (1 - case[3]) * s[0], (1 - case[2]) * s[1]
        clear = s.min() > 0.2 and (a - b).abs() > 0.1 * (a + b)
        if clear and 1.05 < _phase(*case) < 20:
            cases.append(case)
    return cases


@function(
    "phase-with-practice",
    inputs=_senses,
    tolerance=1e-3,
    differs="For {arguments} it should be {expected}, but yours is {yours}. Write down "
    "e_A and e_B as sums over the three kinds of samples; then the derivation runs as "
    "in the chapter.",
    mistakes={
        "Here B is the one that is learned first: compare the drives before you name "
        "them.": lambda *given: _phase(*given, leads=lambda drive, S: False),
        "The first is the one with the larger drive, not the louder one.": (
            lambda *given: _phase(*given, leads=lambda drive, S: S[0, 0] < S[1, 1])
        ),
        "Nothing in your formula depends on what is hidden.": (
            lambda S, s, only_a, only_b: _phase(S, s, 0, 0)
        ),
        "Already at the start a sense is driven only by the samples that show it.": (
            lambda *given: _phase(*given, from_start=True)
        ),
        "You left out what the samples do that show the late one alone.": (
            lambda *given: _phase(*given, alone=False)
        ),
        "What the early one explains counts only where both are shown.": (
            lambda *given: _phase(*given, both=lambda share: 1)
        ),
        "Samples that show A alone are the ones in which B gets no gradient.": (
            lambda S, s, only_a, only_b: _phase(S, s, only_b, only_a)
        ),
        "The covariances with the target are given; you took them to be the sums of "
        "the rows of S.": lambda S, s, only_a, only_b: _phase(
            S, S.sum(1), only_a, only_b
        ),
        "What the first one learns is its covariance with the target over its own "
        "variance, whichever of the two it is.": (
            lambda *given: _phase(*given, spread=lambda S, first: S[0, 0]),
            lambda *given: _phase(
                *given, spread=lambda S, first: S[0, 0] ** (1 - first)
            ),
        ),
    },
)
def ratio(S: Tensor, s: Tensor, only_a: float, only_b: float) -> float:
    return _phase(S, s, only_a, only_b)


Losses = Mapping[str, tuple[float, float]]


def _first_runs() -> list[tuple[Losses, Losses]]:
    """Losses before and after; the last task has only learned by heart."""
    cases = []
    for names in (
        ("joint", "image", "audio"),
        ("audio", "text", "joint", "image"),
        ("image", "joint"),
    ):
        train = {name: (real(2, 3), real(0.1, 0.6)) for name in names}
        valid = {n: (train[n][0] + real(0, 0.2), real(0.8, 1.5)) for n in names}
        valid[names[-1]] = valid[names[-1]][0], valid[names[-1]][0] + 0.5
        cases.append((train, valid))
    return cases


def _raw(
    train: Losses,
    valid: Losses,
    *,
    power: int = 2,
    before: bool = True,
    fall: Callable[[float, float], float] = lambda before, after: max(
        before - after, 0
    ),
    of_train: bool = False,
) -> dict[str, float]:
    """The weights before they sum to one; a mistake has another power of overfitting,
    looks at the gap in the end alone, measures another fall, or that of training."""
    found = {}
    for task in train:
        (train_0, train_1), (valid_0, valid_1) = train[task], valid[task]
        gap = (valid_1 - train_1) - before * (valid_0 - train_0)
        found[task] = fall(*(train if of_train else valid)[task]) / gap**power
    return found


def _scaled(weights: Mapping[str, float]) -> dict[str, float]:
    return {task: w / sum(weights.values()) for task, w in weights.items()}


@function(
    "blend-the-losses",
    inputs=_first_runs,
    differs="The weight at {place} should be {expected}, but yours is {yours}. For "
    "each task: G is valid before minus valid after, O is (valid − train) after minus "
    "(valid − train) before, and its weight is G/O² over the sum of all.",
    mistakes={
        "Divide by their sum, so that the weights sum to one.": _raw,
        "Overfitting counts squared.": lambda train, valid: _scaled(
            _raw(train, valid, power=1)
        ),
        "Overfitting is how far the gap grew, not how large it is in the end.": (
            lambda train, valid: _scaled(_raw(train, valid, before=False))
        ),
        "A task whose validation loss rose has a negative weight in yours, or its "
        "rise counts as a fall; it should have none.": (
            lambda train, valid: _scaled(
                _raw(train, valid, fall=lambda before, after: before - after)
            ),
            lambda train, valid: _scaled(
                _raw(train, valid, fall=lambda before, after: abs(before - after))
            ),
        ),
        "Generalisation is by how much the validation loss falls, not which share of "
        "it.": lambda train, valid: _scaled(
            _raw(train, valid, fall=lambda b, a: max(b - a, 0) / b)
        ),
        "Generalisation is about the validation loss: training loss falls for "
        "everybody.": lambda train, valid: _scaled(_raw(train, valid, of_train=True)),
    },
)
def blend(train: Losses, valid: Losses) -> dict[str, float]:
    return _scaled(_raw(train, valid))
