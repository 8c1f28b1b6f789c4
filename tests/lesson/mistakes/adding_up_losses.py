"""Typical mistakes in the exercises of chapter 07: a part of the hint each must get,
and its code."""

_FACTORS = """
answer = {{
    "the squared error": {0},
    "the mean absolute error": {1},
    "the gradient of the squared error at the trunk": {2},
    "the gradient of the logarithm of the squared error at the trunk": {3},
    "Adam's first step at the trunk, for this task alone": {4},
    "the weight that makes up for it in a sum of squared errors": {5},
}}
"""

_LAPLACE = """
def laplace(losses):
    return {0}, {1}
"""

_AVERAGE = """
def dynamic_average(history, temperature):
    if len(history) < {2}:
        return torch.ones(history.shape[1])
    ratio = {0}
    return {1}
"""
_RATIO = "history[-1] / history[-2]"
_WEIGHTS = "history.shape[1] * (ratio / temperature).softmax(0)"

_FAIR = """
def fair_gain(valid_a, test_a, valid_b, test_b):
    a = test_a[{0}_a.mean(1).argmin()]
    b = test_b[{0}_b.mean(1).argmin()]
    difference = {1}
    return difference.mean(), {2}
"""
_ERROR = "difference.std() / len(difference) ** 0.5"

_SUPPORTED = """
def supported(points):
    w = {0}
    sums = w * points[:, 0] + (1 - w) * points[:, 1]
    found = torch.zeros(len(points), dtype=torch.bool)
    found[sums.argmin(1)] = True
    return {1}
"""
_ALL = "torch.linspace(0, 1, 1002, dtype=points.dtype)[1:-1, None]"

MISTAKES = {
    "what-units-do": {
        "And their square": _FACTORS.format(1e3, 1e3, 1e6, 1, 1, 1e-6),
        "Nothing is squared": _FACTORS.format(1e6, 1e6, 1e6, 1, 1, 1e-6),
        "grows as the loss does": _FACTORS.format(1e6, 1e3, 1e3, 1, 1, 1e-6),
        "derivative of a constant": _FACTORS.format(1e6, 1e3, 1e6, 1e6, 1, 1e-6),
        "by its own size": _FACTORS.format(1e6, 1e3, 1e6, 1, 1e6, 1e-6),
        "has to undo": _FACTORS.format(1e6, 1e3, 1e6, 1, 1, 1e6),
    },
    "learned-noise": {
        "belongs to the Gaussian": _LAPLACE.format(
            "0.5 / losses", "0.5 * (1 + torch.log(losses)).sum()"
        ),
        "b at its optimum": _LAPLACE.format(
            "losses", "(1 + torch.log(2 * losses)).sum()"
        ),
        "A constant is missing": _LAPLACE.format(
            "1 / losses", "(1 + torch.log(losses)).sum()"
        ),
        "for every task. Add it": _LAPLACE.format(
            "1 / losses", "torch.log(2 * losses).sum()"
        ),
        "that is the mean": _LAPLACE.format(
            "1 / losses", "(1 + torch.log(2 * losses)).mean()"
        ),
    },
    "slow-tasks": {
        "no ratio yet": """
def dynamic_average(history, temperature):
    if not len(history):
        return torch.ones(history.shape[1])
    return history.shape[1] * (history[-1] / temperature).softmax(0)
""",
        "They should sum to T": _AVERAGE.format(
            _RATIO, "(ratio / temperature).softmax(0)", 2
        ),
        "upside down": _AVERAGE.format("history[-2] / history[-1]", _WEIGHTS, 2),
        "makes weights equal": _AVERAGE.format(
            _RATIO, "history.shape[1] * (ratio * temperature).softmax(0)", 2
        ),
        "not with the first": _AVERAGE.format("history[-1] / history[0]", _WEIGHTS, 2),
        "How fast do they fall": _AVERAGE.format("history[-1]", _WEIGHTS, 2),
        "Take the last two": _AVERAGE.format("history[1] / history[0]", _WEIGHTS, 2),
    },
    "fair-tuning": {
        "The sign": _FAIR.format("valid", "a - b", _ERROR),
        "must not choose anything": _FAIR.format("test", "b - a", _ERROR),
        "best of each draw": """
def fair_gain(valid_a, test_a, valid_b, test_b):
    difference = test_b.amin(0) - test_a.amin(0)
    return difference.mean(), difference.std() / len(difference) ** 0.5
""",
        "you averaged over all": """
def fair_gain(valid_a, test_a, valid_b, test_b):
    difference = (test_b - test_a).mean(0)
    return difference.mean(), difference.std() / len(difference) ** 0.5
""",
        "Divide by the root": _FAIR.format("valid", "b - a", "difference.std()"),
        "The draws are paired": _FAIR.format(
            "valid", "b - a", "((a.var() + b.var()) / len(a)) ** 0.5"
        ),
        "divide by n − 1": _FAIR.format(
            "valid", "b - a", "difference.std(correction=0) / len(difference) ** 0.5"
        ),
    },
    "supported-points": {
        "has it a supporting line": """
def supported(points):
    better = (points[:, None] < points[None]).all(-1)
    return ~better.any(0)
""",
        "Only the ends": """
def supported(points):
    return (points == points.amin(0)).any(1)
""",
        "Turned round": _SUPPORTED.format(_ALL, "~found"),
        "what equal weights find": _SUPPORTED.format(
            "torch.tensor([[0.5]], dtype=points.dtype)", "found"
        ),
    },
}
