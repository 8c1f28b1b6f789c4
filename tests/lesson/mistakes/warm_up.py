"""Typical mistakes in the exercises of chapter 00: a part of the hint each must get,
and its code."""

MISTAKES = {
    "which-shape": {
        "the 1 stands above the 32": """
answer = {
    "x @ w with x [32, 64] and w [64, 10]": [32, 10],
    "a - m with a [32, 10] and m [32, 1]": [32, 10],
    "a + b with a [32, 1] and b [32]": [32, 1],
    "x.mean(0) with x [32, 64]": [64],
    "g.unsqueeze(1) * h with g [4] and h [5]": [4, 5],
}
""",
        "that axis is gone": """
answer = {
    "x @ w with x [32, 64] and w [64, 10]": [32, 10],
    "a - m with a [32, 10] and m [32, 1]": [32, 10],
    "a + b with a [32, 1] and b [32]": [32, 32],
    "x.mean(0) with x [32, 64]": [32],
    "g.unsqueeze(1) * h with g [4] and h [5]": [4, 5],
}
""",
        "1 of 5": """
answer = {
    "x @ w with x [32, 64] and w [64, 10]": [32, 10],
    "a - m with a [32, 10] and m [32, 1]": [32, 10],
    "a + b with a [32, 1] and b [32]": [32, 32],
    "x.mean(0) with x [32, 64]": [64],
    "g.unsqueeze(1) * h with g [4] and h [5]": [5, 4],
}
""",
        "A shape is a list": """
answer = {
    "x @ w with x [32, 64] and w [64, 10]": [32, 10],
    "a - m with a [32, 10] and m [32, 1]": [32, 10],
    "a + b with a [32, 1] and b [32]": [32, 32],
    "x.mean(0) with x [32, 64]": 64,
    "g.unsqueeze(1) * h with g [4] and h [5]": [4, 5],
}
""",
    },
    "in-bits": {
        "These are nats": """
def bits(logits, y):
    shifted = logits - logits.max(1, keepdim=True).values
    return (shifted.exp().sum(1).log() - shifted[torch.arange(len(y)), y]).mean()
""",
        "divide by log 2": """
def bits(logits, y):
    return F.cross_entropy(logits, y) * torch.tensor(2.0, dtype=torch.float64).log()
""",
        "the sum over the batch": """
def bits(logits, y):
    two = torch.tensor(2.0, dtype=torch.float64)
    return F.cross_entropy(logits, y, reduction="sum") / two.log()
""",
        "e^10000 overflows": """
def bits(logits, y):
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(y)), y].log2().mean()
""",
        "each sample needs its own": """
def bits(logits, y):
    shifted = logits - logits.max()
    p = shifted.exp() / shifted.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(y)), y].log2().mean()
""",
        "ordinary size": """
def bits(logits, y):
    shifted = logits - logits.max(1, keepdim=True).values
    return (shifted.exp().sum(1).log() + shifted[torch.arange(len(y)), y]).mean()
""",
    },
    "by-differences": {
        "has changed w": """
def by_differences(f, w, h=1e-5):
    slopes = torch.empty_like(w)
    for i in range(w.numel()):
        w.view(-1)[i] += h
        above = f(w)
        w.view(-1)[i] -= 2 * h
        slopes.view(-1)[i] = (above - f(w)) / (2 * h)
    return slopes
""",
        "it is a way of 2h": """
def by_differences(f, w, h=1e-5):
    slopes = torch.empty_like(w)
    for i in range(w.numel()):
        step = torch.zeros_like(w)
        step.view(-1)[i] = h
        slopes.view(-1)[i] = (f(w + step) - f(w - step)) / h
    return slopes
""",
        "one-sided": """
def by_differences(f, w, h=1e-5):
    slopes = torch.empty_like(w)
    for i in range(w.numel()):
        step = torch.zeros_like(w)
        step.view(-1)[i] = h
        slopes.view(-1)[i] = (f(w + step) - f(w)) / h
    return slopes
""",
        "move at once": """
def by_differences(f, w, h=1e-5):
    return ((f(w + h) - f(w - h)) / (2 * h)).expand(w.shape)
""",
        "needs the shape of w": """
def by_differences(f, w, h=1e-5):
    return (f(w + h) - f(w - h)) / (2 * h)
""",
    },
    "deep-net": {
        "finds nothing": """
class Deep(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)
""",
        "No ReLU after the last": """
class Deep(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return x
""",
        "one linear map": """
class Deep(nn.Module):
    def __init__(self, widths):
        super().__init__()
        pairs = zip(widths, widths[1:])
        self.layers = nn.Sequential(*(nn.Linear(a, b) for a, b in pairs))

    def forward(self, x):
        return self.layers(x)
""",
        "a bias for each": """
class Deep(nn.Module):
    def __init__(self, widths):
        super().__init__()
        pairs = zip(widths, widths[1:])
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)
""",
    },
    "keep-the-best": {
        "keep a deep copy": """
def train_and_keep(model, loss, valid_loss, steps, lr):
    seen, kept = [], None
    for _ in range(steps):
        model.zero_grad()
        loss(model).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
            seen.append(valid_loss(model).item())
        if seen[-1] == min(seen):
            kept = model.state_dict()
    model.load_state_dict(kept)
    return seen
""",
        "Clear them before backward": """
from copy import deepcopy

def train_and_keep(model, loss, valid_loss, steps, lr):
    seen, kept = [], None
    for _ in range(steps):
        loss(model).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
            seen.append(valid_loss(model).item())
        if seen[-1] == min(seen):
            kept = deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return seen
""",
        "after each step, not before": """
from copy import deepcopy

def train_and_keep(model, loss, valid_loss, steps, lr):
    seen, kept = [], None
    for _ in range(steps):
        seen.append(valid_loss(model).item())
        if seen[-1] == min(seen):
            kept = deepcopy(model.state_dict())
        model.zero_grad()
        loss(model).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
    model.load_state_dict(kept)
    return seen
""",
        "Did you take steps": """
def train_and_keep(model, loss, valid_loss, steps, lr):
    seen = []
    for _ in range(steps):
        model.zero_grad()
        loss(model).backward()
        for p in model.parameters():
            p = p - lr * p.grad
        seen.append(valid_loss(model).item())
    return seen
""",
        "A step is": """
def train_and_keep(model, loss, valid_loss, steps, lr):
    seen = []
    for _ in range(steps):
        model.zero_grad()
        valid_loss(model).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
        seen.append(valid_loss(model).item())
    return seen
""",
        "one for each of the 12 steps": """
def train_and_keep(model, loss, valid_loss, steps, lr):
    for _ in range(steps):
        model.zero_grad()
        loss(model).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
    return valid_loss(model).item()
""",
        "Return plain numbers": """
def train_and_keep(model, loss, valid_loss, steps, lr):
    seen = []
    for _ in range(steps):
        model.zero_grad()
        loss(model).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
        seen.append(valid_loss(model))
    return seen
""",
    },
}
