"""Typical mistakes in the exercises of chapter 11: a part of the hint each must get,
and its code."""

_METHODS = """
answer = {{
    "the tokens of one modality, anew for each token of another": "{0}",
    "known values, by how near their places are": "{1}",
    "modalities, by how sure they are": "{2}",
    "experts, by learned keys, for one task": "{3}",
    "features, each by itself, for one task": "{4}",
    "all tokens of all modalities, for a few learned queries": "{5}",
}}
"""

_ATTEND = """
def attend(q, k, v, valid, heads):
    means = []
    for q, k, v in zip(*(x.chunk({heads}, 2) for x in (q, k, v))):
        scores = q @ k.mT / {width} ** 0.5
        shown = valid.unsqueeze(1)
        means.append({weights} @ v)
    return torch.cat(means, 2)
"""
_MASKED, _WIDTH = "scores.masked_fill(~shown, -torch.inf).softmax(2)", "q.shape[2]"

_WEIGHTS = """
def weights(kind, lengths, few):
    total = sum(lengths)
    if kind == "MulT":
        return {mult}
    if kind == "bottleneck":
        return {bottleneck}
    return {perceiver}
"""
_MULT, _BOTTLENECK, _PERCEIVER = (
    "total**2",
    "sum((n + few) ** 2 for n in lengths)",
    "few * total + few**2",
)

_NEEDED = """
def most_needed(predict, x, blank):
    before = predict(x)
    winner = before.argmax(1, keepdim=True)
    lost = []
    without = x.clone()
    for step in range(x.shape[1]):
        {fresh}
        without[:, step] = {blank}
        lost.append({lost})
    return {best}
"""
_FRESH, _LOST = "without = x.clone()", "(before - predict(without)).gather(1, winner)"
_BEST = "torch.cat(lost, 1).argmax(1)"

MISTAKES = {
    "match-weights": {
        "Ask who looks": _METHODS.format(
            "Perceiver",
            "kernel smoothing",
            "product of experts",
            "gate",
            "task attention",
            "cross-modal attention",
        ),
        "a mask weighs each feature": _METHODS.format(
            "cross-modal attention",
            "kernel smoothing",
            "product of experts",
            "task attention",
            "gate",
            "Perceiver",
        ),
        "the scores are log-precisions": _METHODS.format(
            "cross-modal attention",
            "product of experts",
            "kernel smoothing",
            "gate",
            "task attention",
            "Perceiver",
        ),
        "is not one of the answers": _METHODS.format(
            "MulT",
            "kernel smoothing",
            "product of experts",
            "gate",
            "task attention",
            "Perceiver",
        ),
    },
    "heads-by-hand": {
        "Padding takes part": _ATTEND.format(
            heads="heads", width=_WIDTH, weights="scores.softmax(2)"
        ),
        "no longer sum to one": _ATTEND.format(
            heads="heads", width=_WIDTH, weights="(scores.softmax(2) * shown)"
        ),
        "exp(0) is one": _ATTEND.format(
            heads="heads", width=_WIDTH, weights="(scores * shown).softmax(2)"
        ),
        "not of D": _ATTEND.format(
            heads="heads", width="(q.shape[2] * heads)", weights=_MASKED
        ),
        "The root is missing": _ATTEND.format(
            heads="heads", width="1", weights=_MASKED
        ),
        "over the keys": _ATTEND.format(
            heads="heads",
            width=_WIDTH,
            weights="scores.masked_fill(~shown, -1e30).softmax(1)",
        ),
        "a single head": _ATTEND.format(heads="1", width=_WIDTH, weights=_MASKED),
    },
    "count-weights": {
        "attend to themselves": _WEIGHTS.format(
            mult="total**2 - sum(n**2 for n in lengths)",
            bottleneck=_BOTTLENECK,
            perceiver=_PERCEIVER,
        ),
        "Pairs are ordered": _WEIGHTS.format(
            mult="(total**2 + sum(n**2 for n in lengths)) // 2",
            bottleneck=_BOTTLENECK,
            perceiver=_PERCEIVER,
        ),
        "meet in the few only": _WEIGHTS.format(
            mult=_MULT, bottleneck="(total + few) ** 2", perceiver=_PERCEIVER
        ),
        "The few attend to each other": _WEIGHTS.format(
            mult=_MULT,
            bottleneck="sum(n**2 + 2 * n * few for n in lengths)",
            perceiver=_PERCEIVER,
        ),
        "and the tokens at the few": _WEIGHTS.format(
            mult=_MULT,
            bottleneck="sum(n**2 + n * few for n in lengths)",
            perceiver=_PERCEIVER,
        ),
        "the latents attend to each other": _WEIGHTS.format(
            mult=_MULT, bottleneck=_BOTTLENECK, perceiver="few * total"
        ),
        "Only the latents look": _WEIGHTS.format(
            mult=_MULT, bottleneck=_BOTTLENECK, perceiver="(total + few) ** 2"
        ),
    },
    "delete-and-see": {
        "one step at a time": _NEEDED.format(
            fresh="pass", blank="blank", lost=_LOST, best=_BEST
        ),
        "not zeros": _NEEDED.format(fresh=_FRESH, blank="0", lost=_LOST, best=_BEST),
        "helps the winner": _NEEDED.format(
            fresh=_FRESH, blank="blank", lost=_LOST, best="torch.cat(lost, 1).argmin(1)"
        ),
        "not that of all classes": _NEEDED.format(
            fresh=_FRESH,
            blank="blank",
            lost="(before - predict(without)).abs().sum(1, keepdim=True)",
            best=_BEST,
        ),
        "another class for each sample": _NEEDED.format(
            fresh=_FRESH,
            blank="blank",
            lost="(before - predict(without))[:, :1]",
            best=_BEST,
        ),
        "The input has changed": _NEEDED.format(
            fresh="without = x", blank="blank", lost=_LOST, best=_BEST
        ),
    },
}
