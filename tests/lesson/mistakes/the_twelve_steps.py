"""Typical mistakes in the exercises of chapter 03: a part of the hint each must get,
and its code."""

_PARTS = """
answer = {{
    "the mean and deviation by which inputs are standardised": "{0}",
    "the bounds between brisk, middling and slow": "train",
    "the epoch at which to stop": "{1}",
    "gates or a plain sum": "valid",
    "the weight of the ink's loss": "{2}",
    "the accuracy that goes into the report": "{3}",
}}
"""

_SAVED = """
answer = {{
    "the parameters": True,
    "the optimiser's running means of the gradients": {0},
    "how many epochs are done, which decides the order of the next samples": True,
    "the best parameters so far and their validation loss": True,
    "the gradients of the last step": {1},
    "the predictions for the validation data": False,
}}
"""

MISTAKES = {
    "which-part": {
        "it is computed, like a parameter": _PARTS.format(
            "valid", "valid", "valid", "test"
        ),
        "the longer it trains": _PARTS.format("train", "train", "valid", "test"),
        "it cannot judge any more": _PARTS.format("train", "valid", "test", "test"),
        "would flatter": _PARTS.format("train", "valid", "valid", "valid"),
        "is not one of the answers": _PARTS.format("all", "valid", "valid", "test"),
    },
    "split-by-group": {
        "hold out whole groups": """
def split(groups, count, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(len(groups), generator=g) < 0.3
""",
        "Two groups were to be held out": """
def split(groups, count, seed):
    return groups == groups[0]
""",
        "The same seed has to give the same split": """
def split(groups, count, seed):
    names = groups.unique()
    return torch.isin(groups, names[torch.randperm(len(names))[:count]])
""",
        "Every seed gives the same split": """
def split(groups, count, seed):
    return torch.isin(groups, groups.unique()[:count])
""",
        "Return a bool tensor": """
def split(groups, count, seed):
    return groups.unique()[:count]
""",
    },
    "gate-gradient": {
        "are exchanged": """
def gate_gradient(dz, g, a, b):
    return dz * (a - b) * g * (1 - g), dz * (1 - g), dz * g
""",
        "One step further to the left": """
def gate_gradient(dz, g, a, b):
    return dz * (a - b), dz * g, dz * (1 - g)
""",
        "closes for b at the same time": """
def gate_gradient(dz, g, a, b):
    return dz * a * g * (1 - g), dz * g, dz * (1 - g)
""",
        "by which factor does a enter": """
def gate_gradient(dz, g, a, b):
    return dz * (a - b) * g * (1 - g), dz, dz * (1 - g)
""",
    },
    "winners-curse": {
        "You choose a second time": """
def promised_and_kept(right, n):
    return right[:, :n].mean(1).max(), right[:, n:].mean(1).max()
""",
        "You count all samples": """
def promised_and_kept(right, n):
    seen = right[:, :n].mean(1)
    return seen.max(), right[seen.argmax()].mean()
""",
        "you promise": """
def promised_and_kept(right, n):
    seen = right.mean(1)
    return seen.max(), right[seen.argmax(), n:].mean()
""",
    },
    "what-to-save": {
        "the run goes on, but it goes elsewhere": _SAVED.format(False, False),
        "computed anew before anybody needs it": _SAVED.format(True, True),
    },
}
