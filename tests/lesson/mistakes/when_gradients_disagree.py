"""Typical mistakes in the exercises of chapter 08: a part of the hint each must get,
and its code."""

_WISHES = """
answer = {{
    "the task that is worst off shall gain as much as possible": "{0}",
    "the same, but not far from the mean gradient": "{1}",
    "what works against another gradient is cut off": "{2}",
    "the product of all gains shall be as large as possible": "{3}",
    "the projections on all gradients shall be equal": "{4}",
    "gradients shall be orthogonal and equally long first": "{5}",
}}
"""

_SURGERY = """
def surgery_weights(G):
    total, kept = np.zeros(len(G)), np.eye(len(G))
    for t in range(len(G)):
        v = np.eye(len(G))[t]
        for s in range(len(G)):
            other = {other}
            along = {tested} @ G @ other
            if s != t and {condition}:
                v = v - along / {divisor} * other
        kept[t] = v
        total += v
    return total{end}
"""
_PARTS = {
    "other": "np.eye(len(G))[s]",
    "tested": "v",
    "condition": "along < 0",
    "divisor": "(other @ G @ other)",
    "end": "",
}

_NASH = """
def nash_for_two(G):
    n = np.sqrt(np.diag(G))
    cosine = G[0, 1] / n.prod()
    w = {0}
    return {1}
"""

_LINEAR = """
def linear_gramian(x, slopes):
    return torch.einsum("ij,sih,tjh->st", {0}, slopes, slopes){1}
"""

_UNIT = """
def unit_sum(G):
    n = np.sqrt(np.diag(G))
    w = {0}
    return {1}
"""

MISTAKES = {
    "which-weighting": {
        "One of them stays in a ball": _WISHES.format(
            "CAGrad", "MGDA", "PCGrad", "Nash-MTL", "IMTL-G", "Aligned-MTL"
        ),
        "A bargain maximises something": _WISHES.format(
            "MGDA", "CAGrad", "PCGrad", "IMTL-G", "Nash-MTL", "Aligned-MTL"
        ),
        "changes pairs of gradients": _WISHES.format(
            "MGDA", "CAGrad", "Aligned-MTL", "Nash-MTL", "IMTL-G", "PCGrad"
        ),
        "is not one of the answers": _WISHES.format(
            "MGDA", "CAGrad", "PCGrad", "Nash", "IMTL-G", "Aligned-MTL"
        ),
    },
    "surgery-from-gramian": {
        "not their mean": _SURGERY.format(**_PARTS | {"end": " / len(G)"}),
        "project conflicts only": _SURGERY.format(**_PARTS | {"condition": "True"}),
        "not what is left of them": _SURGERY.format(
            **_PARTS | {"other": "kept[s].copy()"}
        ),
        "the gradient that is visited": _SURGERY.format(
            **_PARTS | {"divisor": "G[t, t]"}
        ),
        "pays the next one": _SURGERY.format(
            **_PARTS | {"tested": "np.eye(len(G))[t]"}
        ),
    },
    "nash-for-two": {
        "Do not normalise": _NASH.format(
            "1 / (n * np.sqrt(1 + cosine))", "w / w.sum()"
        ),
        "The angle matters": _NASH.format("1 / n", "w"),
        "What did their ratio come to": _NASH.format(
            "np.full(2, 1 / np.sqrt(1 + cosine))", "w"
        ),
        "check a sign": _NASH.format("1 / (n * np.sqrt(1 - cosine))", "w"),
        "Take a root": _NASH.format("1 / (n**2 * (1 + cosine))", "w"),
    },
    "linear-gramian": {
        "at the features": _LINEAR.format("torch.eye(len(x), dtype=x.dtype)", ""),
        "with itself alone": _LINEAR.format("torch.diag((x @ x.T).diagonal())", ""),
        "add up": _LINEAR.format("x @ x.T", " / len(x)"),
        "not squared": _LINEAR.format("(x @ x.T) ** 2", ""),
    },
    "own-balancer": {
        "holds squared lengths": _UNIT.format("1 / np.diag(G)", "w"),
        "each gradient shall have length one": _UNIT.format("1 / n", "w / w.sum()"),
        "makes the long ones longer": _UNIT.format("n", "w"),
        "A zero gradient gets the weight zero": _UNIT.format("1 / n", "w"),
    },
}
