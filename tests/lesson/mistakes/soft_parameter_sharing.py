"""Typical mistakes in the exercises of chapter 05: a part of the hint each must get,
and its code."""

_LIMITS = """
answer = {{
    "the solution at λ = 0": "{0}",
    "the solution as λ grows without limit": "{1}",
    "the solution at the best λ, tasks related, labels noisy": "{2}",
    "the best λ, with four times the samples": "{3}",
    "the best λ, with noisier labels": "{4}",
    "the best λ (white inputs, same ρ), with twice as many tasks": "{5}",
}}
"""

_TETHER = """
def tethered(xs, ys, strength):
    tasks, dim = len(xs), xs[0].shape[1]
    S = torch.block_diag(*(x.T @ x {mean} for x in xs))
    b = torch.cat([x.T @ y {mean} for x, y in zip(xs, ys)])
    centre = {coupling}
    springs = torch.kron(centre, torch.eye(dim, dtype=b.dtype))
    return torch.linalg.solve(S + strength * springs, b).view(tasks, dim)
"""
_CENTRE = "torch.eye(tasks, dtype=b.dtype) - 1 / tasks"

MISTAKES = {
    "tether-limits": {
        "Without a spring nobody is held": _LIMITS.format(
            "pooled", "separate", "between", "down", "up", "stays"
        ),
        "The bottom of the valley": _LIMITS.format(
            "separate", "pooled", "pooled", "down", "up", "stays"
        ),
        "what happens to v": _LIMITS.format(
            "separate", "pooled", "between", "up", "up", "stays"
        ),
        "carry the same factor": _LIMITS.format(
            "separate", "pooled", "between", "down", "up", "up"
        ),
        "is not one of the answers": _LIMITS.format(
            "alone", "pooled", "between", "down", "up", "stays"
        ),
    },
    "solve-tethered": {
        "pulls every task to zero": _TETHER.format(
            mean="/ len(x)", coupling="torch.eye(tasks, dtype=b.dtype)"
        ),
        "Your springs run between the tasks": _TETHER.format(
            mean="/ len(x)", coupling="tasks * torch.eye(tasks, dtype=b.dtype) - 1"
        ),
        "Each task's loss is a mean": _TETHER.format(mean="", coupling=_CENTRE),
        "do not solve the equations": """
def tethered(xs, ys, strength):
    solve = torch.linalg.lstsq
    alone = [solve(x, y.unsqueeze(1)).solution.squeeze(1) for x, y in zip(xs, ys)]
    alone = torch.stack(alone)
    return alone.mean(0) + (alone - alone.mean(0)) / (1 + strength)
""",
    },
    "best-strength": {
        "Part of the noise is in the mean": """
def best_strength(w, noise, samples):
    return noise**2 * w.shape[1] / samples / (w - w.mean(0)).square().sum(1).mean()
""",
        "The noise is a standard deviation": """
def best_strength(w, noise, samples):
    tasks, dim = w.shape
    chance = noise * dim / samples * (tasks - 1) / tasks
    return chance / (w - w.mean(0)).square().sum(1).mean()
""",
        "you added them up": """
def best_strength(w, noise, samples):
    tasks, dim = w.shape
    chance = noise**2 * dim / samples * (tasks - 1) / tasks
    return chance / (w - w.mean(0)).square().sum()
""",
        "not signal over noise": """
def best_strength(w, noise, samples):
    tasks, dim = w.shape
    chance = noise**2 * dim / samples * (tasks - 1) / tasks
    return (w - w.mean(0)).square().sum(1).mean() / chance
""",
    },
    "soft-threshold": {
        "cannot be negative": """
def shrink(w, threshold):
    U, s, Vh = torch.linalg.svd(w, full_matrices=False)
    return U * (s - threshold) @ Vh
""",
        "The ones that stay": """
def shrink(w, threshold):
    U, s, Vh = torch.linalg.svd(w, full_matrices=False)
    return U * torch.where(s > threshold, s, 0) @ Vh
""",
        "shrinks the entries": """
def shrink(w, threshold):
    return w.sign() * (w.abs() - threshold).clamp(min=0)
""",
    },
    "graph-tether": {
        "a spring from a task to itself": """
def laplacian(a):
    return torch.diag(a.sum(1)) - a + torch.diag(a.diagonal())
""",
        "Each pair is counted once": """
def laplacian(a):
    a = a - torch.diag(a.diagonal())
    return 2 * (torch.diag(a.sum(1)) - a)
""",
        "Look at the sign": """
def laplacian(a):
    a = a - torch.diag(a.diagonal())
    return torch.diag(a.sum(1)) + a
""",
        "the diagonal": """
def laplacian(a):
    return -(a - torch.diag(a.diagonal()))
""",
    },
}
