"""Typical mistakes in the exercises of chapter 09: a part of the hint each must get,
and its code."""

_LEVELS = """
answer = {{
    "both features, end to end, are the input of one network": "{0}",
    "a question scales the channels of a picture's features": "{1}",
    "two networks vote, and the votes are averaged": "{2}",
    "a gate that sees both features weighs one against the other": "{3}",
    "projected features are added up before a common trunk": "{4}",
    "the probabilities of two models are multiplied": "{5}",
}}
"""
_F, _M, _D = "feature", "modality", "decision"

_ADDITIVE = """
def additive(s):
    a = s.mean((1, 2), keepdim=True)
    b = s.mean((0, 2), keepdim=True)
    c = s.mean((0, 1), keepdim=True)
    return {0}
"""

_LEFT = """
def left_over(Q, R):
    rest = {0}
    s = torch.linalg.svdvals(rest)
    return {1}
"""
_REST = "Q - Q.mean(0, keepdim=True) - Q.mean(1, keepdim=True) + Q.mean()"
_ERROR = "s[R:].square().sum() / Q.numel()"

_BITS = """
def difference(p):
    def information(q):
        apart = q.sum(1, keepdim=True) * q.sum(0, keepdim=True)
        seen = q > 0
        return (q[seen] * torch.{0}(q[seen] / apart[seen])).sum()

    both = information(p.flatten(0, 1))
    first, second = information(p.sum(1)), information(p.sum(0))
    return {1}
"""

_BAYES = """
def bayes(slips, prior):
    M, p = len(slips), slips.prod(0)
    return {0}
"""
_NORMAL = "({0}) / ({0}).sum(-1, keepdim=True)"

MISTAKES = {
    "which-level": {
        "has been decided already": _LEVELS.format(_F, _M, _F, _M, _F, _D),
        "one modality act on another": _LEVELS.format(_F, _F, _D, _M, _F, _D),
        "before the common network": _LEVELS.format(_F, _M, _D, _M, _M, _D),
        "is not one of the answers": _LEVELS.format("early", _M, "late", _M, _F, _D),
    },
    "additive-part": {
        "it must come once": _ADDITIVE.format("a + b + c"),
        "comes three times in all": _ADDITIVE.format("a + b + c - s.mean()"),
        "missing altogether": _ADDITIVE.format("a + b + c - 3 * s.mean()"),
        "That is the interaction": _ADDITIVE.format("s - (a + b + c - 2 * s.mean())"),
        "two modalities together": """
def additive(s):
    return sum(s.mean(k, keepdim=True) for k in range(3)) - 2 * s.mean()
""",
        "got [2]": "def additive(s):\n    return s.mean((1, 2))",
    },
    "left-over": {
        "take it away first": _LEFT.format("Q", _ERROR),
        "not one number": _LEFT.format("Q - Q.mean()", _ERROR),
        "but not g(b)": _LEFT.format("Q - Q.mean(1, keepdim=True)", _ERROR),
        "divide by their number": _LEFT.format(_REST, "s[R:].square().sum()"),
        "squared singular values.": _LEFT.format(_REST, "s[R:].sum() / Q.numel()"),
        "what the products explain": _LEFT.format(
            _REST, "s[:R].square().sum() / Q.numel()"
        ),
    },
    "co-information": {
        "redundancy minus synergy": _BITS.format("log2", "first + second - both"),
        "in nats": _BITS.format("log", "both - first - second"),
        "What do they know alone": _BITS.format("log2", "both"),
        "the second one knows": _BITS.format("log2", "both - first"),
        "counts as zero": """
def difference(p):
    def information(q):
        apart = q.sum(1, keepdim=True) * q.sum(0, keepdim=True)
        return (q * torch.log2(q / apart)).sum()

    return information(p.flatten(0, 1)) - information(p.sum(1)) - information(p.sum(0))
""",
    },
    "bayes-of-slips": {
        "sum to one.": _BAYES.format("p / prior ** (M - 1)"),
        "bare products": _BAYES.format("p"),
        "counts the prior M times": _BAYES.format(_NORMAL.format("p")),
        "the other rule": _BAYES.format("slips.mean(0)"),
        "once too often": _BAYES.format(_NORMAL.format("p / prior**M")),
        "divide, do not multiply": _BAYES.format(_NORMAL.format("p * prior")),
        "For M of them": _BAYES.format(_NORMAL.format("p / prior")),
    },
}
