"""Typical mistakes in the exercises of chapter 01: a part of the hint each must get,
and its code."""

MISTAKES = {
    "which-arrow": {
        "sharing decides": """
answer = {
    "convolutions instead of an MLP over the pixels": "encoder",
    "adding the features up instead of joining them end to end": "sharing",
    "a trunk of its own for every task": "fusion",
    "an eleventh digit class for 'no digit at all'": "head",
    "counting the loss of ink ten times": "balancer",
}
""",
        "turns the losses into one update": """
answer = {
    "convolutions instead of an MLP over the pixels": "encoder",
    "adding the features up instead of joining them end to end": "fusion",
    "a trunk of its own for every task": "sharing",
    "an eleventh digit class for 'no digit at all'": "head",
    "counting the loss of ink ten times": "head",
}
""",
        "is not one of the answers": """
answer = {
    "convolutions instead of an MLP over the pixels": "encoders",
    "adding the features up instead of joining them end to end": "fusion",
    "a trunk of its own for every task": "sharing",
    "an eleventh digit class for 'no digit at all'": "head",
    "counting the loss of ink ten times": "balancer",
}
""",
    },
    "count-saving": {
        "upside down": """
def saving(body, heads):
    return (body + sum(heads)) / (len(heads) * body + sum(heads))
""",
        "if heads cost nothing": """
def saving(body, heads):
    return len(heads)
""",
        "has heads too": """
def saving(body, heads):
    return (len(heads) * body + sum(heads)) / body
""",
    },
    "masked-loss": {
        "divide by the batch size": """
def masked_loss(logits, target):
    each = F.cross_entropy(logits, target.clamp(min=0), reduction="none")
    return (each * (target >= 0)).sum() / len(target)
""",
        "the sum over the labelled": """
def masked_loss(logits, target):
    return F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
""",
        "count as class 0": """
def masked_loss(logits, target):
    return F.cross_entropy(logits, target.clamp(min=0))
""",
        "0/0": """
def masked_loss(logits, target):
    return F.cross_entropy(logits, target, ignore_index=-1)
""",
    },
    "fuse-present": {
        "NaN came through": """
def fuse(z, present):
    total = sum(z[m] * present[m].unsqueeze(1) for m in z)
    return total / sum(present[m].unsqueeze(1) for m in z)
""",
        "divide by the number of modalities": """
def fuse(z, present):
    return sum(torch.where(present[m].unsqueeze(1), z[m], 0) for m in z) / len(z)
""",
        "That is the sum": """
def fuse(z, present):
    return sum(torch.where(present[m].unsqueeze(1), z[m], 0) for m in z)
""",
    },
    "shared-or-separate": {
        "spread of single differences": """
def paired(a, b):
    d = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    return d.mean().item(), d.std().item()
""",
        "as if the runs were unrelated": """
def paired(a, b):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    return (a.mean() - b.mean()).item(), ((a.var() + b.var()) / len(a)).sqrt().item()
""",
        "n − 1": """
def paired(a, b):
    d = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
    return d.mean().item(), d.std(correction=0).item() / len(d) ** 0.5
""",
        "two numbers": """
def paired(a, b):
    return sum(a) / len(a) - sum(b) / len(b)
""",
    },
}
