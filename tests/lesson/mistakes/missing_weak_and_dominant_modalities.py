"""Typical mistakes in the exercises of chapter 10: a part of the hint each must get,
and its code."""

_ASKED = """
answer = {{
    "a new linear head on its frozen features is as good as a model "
    "of its own": "never {0}",
    "a new linear head on its frozen features is at chance": "never {1}",
    "it is a backup whose map stands where it started": "never {2}",
    "with encoders frozen, some practice for the layers behind them "
    "cures it": "never {3}",
    "its gradient went to zero when the other sense had fitted the "
    "training data": "never {4}",
}}
"""

_SHARES = """
def shares(log_variances, present):
    scores = torch.where(present.unsqueeze(2), {score}, -torch.inf)
    prior = torch.zeros_like(scores[:, :1])
    return torch.cat([scores, prior], 1).softmax(1)[:, :-1]
"""

_PHASE = """
def ratio(S, s, only_a, only_b):
    shown = {shown}
    drive = [share * float(x) for share, x in zip(shown, s)]
    first = {first}
    second = 1 - first
    learned = s[first] / S[first, first]
    left = {left}
    return float(1 + {lead} / left)
"""
_RIGHT = {
    "shown": "1 - only_b, 1 - only_a",
    "first": "0 if drive[0] >= drive[1] else 1",
    "left": "drive[second] - (1 - only_a - only_b) * learned * S[0, 1]",
    "lead": "(drive[first] - drive[second])",
}

_BLEND = """
def blend(train, valid):
    raw = {{}}
    for task, (before, after) in valid.items():
        gap = {gap}
        raw[task] = {weight}
    return {result}
"""
_GAP = "(after - train[task][1]) - (before - train[task][0])"
_WEIGHT = "max(before - after, 0) / gap**2"
_RESULT = "{task: w / sum(raw.values()) for task, w in raw.items()}"

MISTAKES = {
    "never-asked": {
        "A probe asks the features": _ASKED.format(
            "taught", "asked", "taught", "asked", "taught"
        ),
        "the knowledge was there before": _ASKED.format(
            "asked", "taught", "taught", "taught", "taught"
        ),
        "An encoder that is not driven": _ASKED.format(
            "asked", "taught", "asked", "asked", "asked"
        ),
        "is not one of the answers": _ASKED.format(
            "asked", "taught", "learned", "asked", "taught"
        ),
    },
    "multiply-experts": {
        "sum to less than one": """
def shares(log_variances, present):
    return torch.where(present.unsqueeze(2), -log_variances, -torch.inf).softmax(1)
""",
        "Those who are unsure count for more": _SHARES.format(score="log_variances"),
        "An absent expert has no share": """
def shares(log_variances, present):
    precision = (-log_variances).exp()
    return precision / (1 + precision.sum(1, keepdim=True))
""",
        "give it to the others": """
def shares(log_variances, present):
    precision = (-log_variances).exp()
    return present.unsqueeze(2) * precision / (1 + precision.sum(1, keepdim=True))
""",
        "one over the standard deviation": _SHARES.format(score="-log_variances / 2"),
        "never overflows": """
def shares(log_variances, present):
    precision = (-log_variances).exp() * present.unsqueeze(2)
    return precision / (1 + precision.sum(1, keepdim=True))
""",
    },
    "phase-with-practice": {
        "compare the drives before you name them": _PHASE.format(
            **{**_RIGHT, "first": "0"}
        ),
        "Nothing in your formula depends": """
def ratio(S, s, only_a, only_b):
    first = 0 if s[0] >= s[1] else 1
    left = s[1 - first] - s[first] / S[first, first] * S[0, 1]
    return float(1 + (s[first] - s[1 - first]) / left)
""",
        "Already at the start": _PHASE.format(
            **{**_RIGHT, "lead": "abs(float(s[0] - s[1]))"}
        ),
        "the samples do that show the late one alone": _PHASE.format(
            **{
                **_RIGHT,
                "left": "(1 - only_a - only_b) * (s[second] - learned * S[0, 1])",
            }
        ),
        "counts only where both are shown": _PHASE.format(
            **{**_RIGHT, "left": "drive[second] - learned * S[0, 1]"}
        ),
        "the ones in which B gets no gradient": _PHASE.format(
            **{**_RIGHT, "shown": "1 - only_a, 1 - only_b"}
        ),
    },
    "blend-the-losses": {
        "Divide by their sum": _BLEND.format(gap=_GAP, weight=_WEIGHT, result="raw"),
        "Overfitting counts squared": _BLEND.format(
            gap=_GAP, weight="max(before - after, 0) / gap", result=_RESULT
        ),
        "how far the gap grew": _BLEND.format(
            gap="after - train[task][1]", weight=_WEIGHT, result=_RESULT
        ),
        "has a negative weight": _BLEND.format(
            gap=_GAP, weight="(before - after) / gap**2", result=_RESULT
        ),
        "training loss falls for everybody": _BLEND.format(
            gap=_GAP,
            weight="(train[task][0] - train[task][1]) / gap**2",
            result=_RESULT,
        ),
    },
}
