"""Typical mistakes in the exercises of chapter 04: a part of the hint each must get,
and its code."""

_GRADIENTS = """
answer = {{
    "the first layer": "{0}",
    "the digit's own second layer": "digit",
    "the head of rate": "{1}",
    "the first layer, in a batch without any digit label": "{2}",
    "the head of digit, in a batch without any digit label": "none",
    "the first layer, with the weight of rate at zero": "{3}",
}}
"""

_EXAMPLES = """
from math import ceil, log


def examples_needed(log_trunks, log_middles, log_heads, T, S, epsilon, delta):
    paid = log_heads + {0} + (log_trunks + log(2 / delta)) / T
    return {1}(paid / ({2} * epsilon**2))
"""

_TASKS = """
from math import ceil, inf


def tasks_needed(D, k, r):
    if {0}:
        return inf
    return {1}
"""

MISTAKES = {
    "whose-gradient": {
        "Which predictions change": _GRADIENTS.format("both", "both", "rate", "digit"),
        "moves nothing": _GRADIENTS.format("both", "rate", "both", "digit"),
        "each times its weight": _GRADIENTS.format("both", "rate", "rate", "both"),
        "is not one of the answers": _GRADIENTS.format("all", "rate", "rate", "digit"),
    },
    "examples-needed": {
        "round up what remains": _EXAMPLES.format("log_middles / S", "int", "2"),
        "How many share one?": _EXAMPLES.format("log_middles", "ceil", "2"),
        "You let all tasks share": _EXAMPLES.format("log_middles / T", "ceil", "2"),
        "where is the 2?": _EXAMPLES.format("log_middles / S", "ceil", "1"),
        "not S": _EXAMPLES.format("log_middles * S / T", "ceil", "2"),
        "is divided by T, too": """
from math import ceil, log


def examples_needed(log_trunks, log_middles, log_heads, T, S, epsilon, delta):
    paid = log_heads + log_middles / S + log_trunks / T + log(2 / delta)
    return ceil(paid / (2 * epsilon**2))
""",
        "of all tasks together": """
from math import ceil, log


def examples_needed(log_trunks, log_middles, log_heads, T, S, epsilon, delta):
    paid = T * log_heads + T / S * log_middles + log_trunks + log(2 / delta)
    return ceil(paid / (2 * epsilon**2))
""",
    },
    "tasks-needed": {
        "Round up": _TASKS.format("r * D <= k", "int(k * (D - k) / (r * D - k))"),
        "of the numbers do not count": _TASKS.format(
            "r * D <= k", "ceil(k * D / (r * D - k))"
        ),
        "their own k numbers": _TASKS.format(
            "r * D <= k", "ceil(k * (D - k) / (r * D))"
        ),
        "no number of tasks is enough": _TASKS.format(
            "r * D == k", "ceil(k * (D - k) / (r * D - k + 1e-12))"
        ),
    },
    "branch-cost": {
        "a copy of every layer": """
def fork_cost(layers, heads, shared):
    return sum(layers) + sum(heads)
""",
        "The heads have parameters": """
def fork_cost(layers, heads, shared):
    return sum(layers[:shared]) + len(heads) * sum(layers[shared:])
""",
        "The other way round": """
def fork_cost(layers, heads, shared):
    return len(heads) * sum(layers[:shared]) + sum(layers[shared:]) + sum(heads)
""",
        "what separate models cost": """
def fork_cost(layers, heads, shared):
    return len(heads) * sum(layers) + sum(heads)
""",
    },
    "lookahead": {
        "only a trial": """
def lookahead(loss, theta, gradient, lr):
    before = loss(theta)
    theta -= lr * gradient
    return float(1 - loss(theta) / before)
""",
        "against the gradient": """
def lookahead(loss, theta, gradient, lr):
    return float(1 - loss(theta + lr * gradient) / loss(theta))
""",
        "which share of the loss": """
def lookahead(loss, theta, gradient, lr):
    return float(loss(theta) - loss(theta - lr * gradient))
""",
        "what is left of the loss": """
def lookahead(loss, theta, gradient, lr):
    return float(loss(theta - lr * gradient) / loss(theta))
""",
        "The sign": """
def lookahead(loss, theta, gradient, lr):
    return float(loss(theta - lr * gradient) / loss(theta) - 1)
""",
    },
}
