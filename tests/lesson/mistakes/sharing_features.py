"""Typical mistakes in the exercises of chapter 06: a part of the hint each must get,
and its code."""

_SHARINGS = """
answer = {{
    "parameters differ by task, and a penalty keeps them close": "{0}",
    "every task reads the very same feature": "{1}",
    "a mixture of all tasks' trunks, the same for every input": "{2}",
    "a mixture of common experts, chosen anew for every input": "{3}",
    "some experts are closed to the other tasks' gates": "{4}",
    "one trunk, of which each task turns features down": "{5}",
}}
"""

_LEAST = """
def least_error(y, width):
    covariance = {covariance}
    values = torch.linalg.eigvalsh(covariance)
    return values[{kept}].sum() / {divisor}
"""
_COVARIANCE, _KEPT = "y.T.cov(correction=0)", ": max(y.shape[1] - width, 0)"

_STEP = """
def stitch_step(alpha, x, slopes, lr):
    gradient = torch.einsum("{0}", slopes, x)
    return {1}
"""

_GATED = """
def gated(f, logits, allowed):
    allowed = allowed.unsqueeze(1)
    return torch.einsum("tne,enh->tnh", {0}, f)
"""

_PATHS = """
def paths(first, second, own):
    tasks = len(second)
    shared = second[:, tasks * own :].sum(1, keepdim=True)
    return {0}
"""

MISTAKES = {
    "which-sharing": {
        "Ask first what is shared": _SHARINGS.format(
            "hard", "soft", "cross-stitch", "MMoE", "PLE", "task attention"
        ),
        "a gate reads the input": _SHARINGS.format(
            "soft", "hard", "MMoE", "cross-stitch", "PLE", "task attention"
        ),
        "walls between experts": _SHARINGS.format(
            "soft", "hard", "cross-stitch", "MMoE", "task attention", "PLE"
        ),
        "is not one of the answers": _SHARINGS.format(
            "soft", "hard", "stitch", "MMoE", "PLE", "task attention"
        ),
    },
    "narrow-feature": {
        "you added them up": _LEAST.format(
            covariance=_COVARIANCE, kept=_KEPT, divisor=1
        ),
        "not by N − 1": _LEAST.format(
            covariance="y.T.cov()", kept=_KEPT, divisor="y.shape[1]"
        ),
        "take the labels' means away": _LEAST.format(
            covariance="y.T @ y / len(y)", kept=_KEPT, divisor="y.shape[1]"
        ),
        "what it does not": _LEAST.format(
            covariance=_COVARIANCE,
            kept="max(y.shape[1] - width, 0) :",
            divisor="y.shape[1]",
        ),
    },
    "stitch-gradient": {
        "against the slope": _STEP.format("tnd,snd->ts", "alpha + lr * gradient"),
        "Rows are the tasks that read": _STEP.format(
            "tnd,snd->st", "alpha - lr * gradient"
        ),
        "add up": _STEP.format("tnd,snd->ts", "alpha - lr * gradient / x.shape[1]"),
        "Now take the step": _STEP.format("tnd,snd->ts", "gradient"),
    },
    "gates-and-experts": {
        "All experts take part": _GATED.format("logits.softmax(-1)"),
        "no longer sum to one": _GATED.format("logits.softmax(-1) * allowed"),
        "exp(0) is one": _GATED.format("(logits * allowed).softmax(-1)"),
    },
    "follow-the-paths": {
        "are missing": _PATHS.format("(1 - shared) * first[:tasks]"),
        "What do the shared experts read": _PATHS.format("first[:tasks]"),
        "Weigh the two kinds": _PATHS.format("first[:tasks] + first[tasks:]"),
        "Exchanged": _PATHS.format(
            "shared * first[:tasks] + (1 - shared) * first[tasks:]"
        ),
    },
}
