"""What holds for every sharing, on any trunk, in training and outside; and the
mathematics of each."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn

from mtmm_lib.batch import Batch
from mtmm_lib.encoders import MLPEncoder
from mtmm_lib.fusion import SumFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import (
    ALL,
    PLE,
    CrossStitch,
    HardSharing,
    MMoE,
    SharedPrivate,
    SoftSharing,
    TaskAttention,
    difference,
    mlp_trunk,
    separate,
    tether,
    trace_norm,
)
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import fit, fit_many

TASKS = ("ink", "digit", "size", "accent")


class TokenConvolution(nn.Module):
    """A convolution along the tokens, `[B, L, C]` → `[B, L, D]`."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(in_dim, dim, 3, padding=1)

    def forward(self, z):
        return self.convolution(z.transpose(1, 2)).transpose(1, 2).tanh()


def conv_trunk(in_dim, dim):
    return nn.Sequential(TokenConvolution(in_dim, 5), TokenConvolution(5, dim))


def transformer_trunk(in_dim, dim):
    layer = nn.TransformerEncoderLayer(
        dim, 2, 2 * dim, dropout=0.0, batch_first=True, norm_first=True
    )
    return nn.Sequential(nn.Linear(in_dim, dim), layer)


def linear_trunk(in_dim, dim):
    return nn.Sequential(nn.Linear(in_dim, dim, bias=False))


VARIANTS = {
    **ALL,
    "SoftSharing, trace norm": partial(SoftSharing, penalty="trace_norm"),
}
TRUNKS = {"mlp": mlp_trunk, "conv": conv_trunk, "transformer": transformer_trunk}
every_sharing = pytest.mark.parametrize("sharing", VARIANTS.values(), ids=VARIANTS)
every_trunk = pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
any_number = pytest.mark.parametrize("count", [1, 2, 3, 4])


def objective(shared):
    return sum(h.square().sum() for h in shared.features.values()) + shared.penalty


@every_sharing
@every_trunk
@any_number
def test_shapes_gradients_and_state(sharing, trunk, count):
    module, z = sharing(TASKS[:count], 6, 8, trunk), torch.randn(7, 3, 6)
    shared = module(z)
    assert set(shared.features) == set(module.tasks) == set(TASKS[:count])
    assert all(h.shape == (7, 3, module.dim) for h in shared.features.values())
    assert torch.as_tensor(shared.penalty).shape == ()
    objective(shared).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    again = sharing(TASKS[:count], 6, 8, trunk)
    again.load_state_dict(module.state_dict())
    other = again(z)
    assert all(
        torch.equal(other.features[task], h) for task, h in shared.features.items()
    )
    assert all(
        torch.equal(other.weights[name], w) for name, w in shared.weights.items()
    )
    assert torch.equal(torch.as_tensor(other.penalty), torch.as_tensor(shared.penalty))


@every_sharing
@any_number
def test_one_sample_and_one_token_are_what_they_are_among_others(sharing, count):
    module, z = sharing(TASKS[:count], 6, 8), torch.randn(7, 3, 6)
    whole, sample, token = (module(part).features for part in (z, z[2:3], z[2:3, 1:2]))
    for task in module.tasks:
        torch.testing.assert_close(sample[task], whole[task][2:3])
        torch.testing.assert_close(token[task], whole[task][2:3, 1:2])


@every_sharing
def test_the_order_of_the_tasks_changes_nothing(sharing):
    z, results = torch.randn(4, 2, 6), []
    for tasks in (TASKS, TASKS[::-1]):
        torch.manual_seed(3)
        results.append(sharing(tasks, 6, 8)(z))
    one, other = results
    assert all(torch.equal(one.features[task], other.features[task]) for task in TASKS)
    assert one.weights.keys() == other.weights.keys()
    assert all(
        torch.equal(one.weights[name], other.weights[name]) for name in one.weights
    )


@every_sharing
def test_tasks_are_named_once(sharing):
    for tasks in ([], ["a", "b", "a"]):
        with pytest.raises(ValueError, match="at least one task and no name twice"):
            sharing(tasks, 6, 8)


@every_sharing
def test_a_trunk_is_a_sequence_of_stages(sharing):
    for trunk in (nn.Linear, lambda *_: nn.Sequential()):
        with pytest.raises(TypeError, match="nn.Sequential of stages, got"):
            sharing(["a"], 6, 8, trunk)


@every_sharing
def test_one_seed_gives_one_start(sharing):
    starts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        starts.append(
            torch.cat([p.flatten() for p in sharing(TASKS[:2], 6, 8).parameters()])
        )
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


@every_sharing
def test_bfloat16_keeps_close(sharing):
    module, z = sharing(TASKS[:2], 6, 8), torch.randn(7, 3, 6)
    exact = module(z)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(z)
        loss = objective(rounded)
    loss.backward()
    for task in module.tasks:
        torch.testing.assert_close(
            rounded.features[task].float(), exact.features[task], atol=0.03, rtol=0.03
        )
    penalties = [torch.as_tensor(shared.penalty).float() for shared in (rounded, exact)]
    torch.testing.assert_close(*penalties, rtol=0.03, atol=1e-6)
    assert all(p.grad.isfinite().all() for p in module.parameters())


class AsTensors(nn.Module):
    """A sharing whose result is of types that an exported program may return."""

    def __init__(self, sharing):
        super().__init__()
        self.sharing = sharing

    def forward(self, z):
        shared = self.sharing(z)
        return shared.features, shared.weights, shared.penalty


@every_sharing
def test_it_exports_for_any_batch_size(sharing):
    module = AsTensors(sharing(TASKS[:2], 6, 8)).eval()
    sizes = {"z": {0: torch.export.Dim("B", min=2)}}
    exported = torch.export.export(
        module, (torch.randn(4, 3, 6),), dynamic_shapes=sizes
    ).module()
    z = torch.randn(9, 3, 6)
    torch.testing.assert_close(exported(z), module(z))


def problem(sharing, count: int = 2):
    """A model with an encoder, and a function that makes its data, with a third of the
    labels missing."""
    tasks = [Regression("ink"), Classification("digit", 3), Regression("size")][:count]

    def build():
        parts = sharing([task.name for task in tasks], 5, 4)
        return Model(
            {"x": MLPEncoder(6, 5, hidden=())}, SumFusion({"x": 5}, 5), parts, tasks
        )

    def samples(seed: int, n: int = 23) -> Batch:
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(n, 6, generator=draw)
        targets = {"ink": x[:, 0], "digit": x[:, :3].argmax(1), "size": x.sum(1)}
        for name, y in targets.items():
            gone = torch.rand(n, generator=draw) < 1 / 3
            targets[name] = torch.where(gone, -1 if name == "digit" else math.nan, y)
        return Batch({"x": x}, {task.name: targets[task.name] for task in tasks})

    return build, samples


@pytest.mark.parametrize(
    "sharing", [*ALL.values(), *(partial(PLE, levels=n) for n in (1, 3))]
)
@pytest.mark.parametrize("count", [2, 3])
def test_what_belongs_to_a_task_is_what_its_loss_alone_reaches(sharing, count):
    build, samples = problem(sharing, count)
    model, batch = build(), samples(0)
    losses = model.losses(model(batch), batch)
    reached = {}
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        reached[name] = {id(p) for p in model.parameters() if p.grad is not None}
    shared = {id(p) for p in model.shared_parameters()}
    for name in losses:
        others = set.union(*(reached[other] for other in losses if other != name))
        assert {id(p) for p in model.task_parameters(name)} == reached[name] - others
    # What two or more tasks reach, a gradient balancer combines.
    assert shared == {
        p
        for p in set.union(*reached.values())
        if sum(p in r for r in reached.values()) > 1
    }
    assert len(model.shared_parameters()) == len(shared)


@every_sharing
def test_it_learns_from_the_labels_there_are(sharing):
    build, samples = problem(sharing, 3)
    torch.manual_seed(0)
    model, data = build(), samples(1, 128)
    history = fit(model, data, epochs=40, lr=0.01, progress=False)
    first, last = (sum(history.train_loss[epoch].values()) for epoch in (0, -1))
    assert last < 0.6 * first


@every_sharing
@pytest.mark.parametrize("rare", [False, True])
def test_many_seeds_at_once_are_each_what_fit_makes(sharing, rare):
    build, samples = problem(sharing)
    seeds, settings = (
        [4, 5, 6],
        {"epochs": 3, "batch_size": 5, "lr": 0.01, "weight_decay": 0.1},
    )
    train, valid = ([samples(seed + shift) for seed in seeds] for shift in (0, 10))
    if rare:  # most batches then have a label of one task only, or of none
        for data in train:
            data.targets["ink"][3:], data.targets["digit"][:-3] = math.nan, -1
    models = fit_many(build, train, seeds=seeds, valid=valid, **settings)
    for seed, data, held_out, model in zip(seeds, train, valid, models, strict=True):
        torch.manual_seed(seed)
        alone = build()
        fit(alone, data, valid=held_out, seed=seed, progress=False, **settings)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(
                model.state_dict()[name], value, atol=1e-4, rtol=0
            )


# Hard sharing and its opposite


def test_hard_sharing_gives_every_task_the_same_tensor():
    module = HardSharing(TASKS, 6, 8)
    shared = module(torch.randn(2, 1, 6))
    assert len({id(h) for h in shared.features.values()}) == 1
    assert module.one_trunk and not any(
        cls.one_trunk for cls in ALL.values() if cls is not HardSharing
    )


def test_a_vector_may_come_in_place_of_a_sequence_of_one():
    module, z = HardSharing(TASKS, 6, 8), torch.randn(2, 6)
    assert module.takes_vectors
    vectors, sequences = module(z).features, module(z.unsqueeze(1)).features
    for name, h in sequences.items():
        assert h.shape == (2, 1, 8)
        torch.testing.assert_close(vectors[name], h.squeeze(1))
    # a trunk of one's own is promised tokens
    own = HardSharing(TASKS, 6, 8, lambda a, b: nn.Sequential(nn.Linear(a, b)))
    assert not own.takes_vectors


def test_separate_builds_a_model_for_each_task_alone():
    built = separate(
        lambda tasks: [task.name for task in tasks],
        [Regression("ink"), Regression("size")],
    )
    assert built == {"ink": ["ink"], "size": ["size"]}


# Soft sharing


def laplacian(tasks: int) -> torch.Tensor:
    return torch.eye(tasks, dtype=torch.float64) - 1 / tasks


@any_number
def test_the_tether_to_the_mean_the_pairwise_one_and_the_laplacian(count):
    theta = torch.randn(count, 5, dtype=torch.float64, requires_grad=True)
    value = tether(theta)
    pairs = sum(
        (theta[s] - theta[t]).square().sum() for t in range(count) for s in range(t)
    )
    torch.testing.assert_close(
        count * value, torch.as_tensor(pairs, dtype=torch.float64)
    )
    torch.testing.assert_close(value, (theta.T @ laplacian(count) @ theta).trace())
    value.backward()
    torch.testing.assert_close(theta.grad, 2 * laplacian(count) @ theta.detach())


def test_the_penalty_sums_over_the_trunks_parameters():
    z = torch.randn(2, 1, 6)
    for name, function in (("l2", tether), ("trace_norm", trace_norm)):
        module = SoftSharing(TASKS[:3], 6, 8, penalty=name, strength=0.3)
        for p in module.parameters():
            nn.init.normal_(p)
        rows = zip(
            *(module.trunks[task].parameters() for task in TASKS[:3]), strict=True
        )
        expected = 0.3 * sum(
            function(torch.stack([p.flatten() for p in row])) for row in rows
        )
        torch.testing.assert_close(module(z).penalty, expected)


def test_soft_sharing_starts_as_hard_sharing_and_without_strength_shares_nothing():
    z = torch.randn(5, 2, 6)
    module = SoftSharing(TASKS, 6, 8)
    shared = module(z)
    assert shared.penalty == 0
    assert all(torch.equal(h, shared.features["ink"]) for h in shared.features.values())
    assert SoftSharing(TASKS, 6, 8, strength=0)(z).penalty == 0
    with pytest.raises(ValueError, match=r"one of \['l2', 'trace_norm'\], got 'l1'"):
        SoftSharing(TASKS, 6, 8, penalty="l1")
    for strength, sharing in itertools.product(
        (-1.0, math.nan), (SoftSharing, SharedPrivate)
    ):
        with pytest.raises(ValueError, match="strength needs to be >= 0"):
            sharing(TASKS, 6, 8, strength=strength)


def tethered_ridge(inputs, labels, strength):
    r"""Minimises $\sum_t\frac{1}{n_t}\lVert y_t-X_tw_t\rVert^2+\lambda\sum_t\lVert
    w_t-\bar w\rVert^2$.

    Its stationary points solve $(S+\lambda L\otimes I)w = b$, with the tasks' Gram
    matrices on the diagonal of S.
    """
    tasks, dim = len(inputs), inputs[0].shape[1]
    gram = torch.block_diag(*(x.T @ x / len(x) for x in inputs))
    right = torch.cat([x.T @ y / len(x) for x, y in zip(inputs, labels, strict=True)])
    coupling = torch.kron(laplacian(tasks), torch.eye(dim, dtype=torch.float64))
    return torch.linalg.solve(gram + strength * coupling, right).view(tasks, dim)


def linear_tasks(counts=(9, 14, 30), dim=5):
    inputs = [torch.randn(n, dim, dtype=torch.float64) for n in counts]
    return inputs, [torch.randn(n, dtype=torch.float64) for n in counts]


@pytest.mark.parametrize("strength", [0.0, 0.03, 1.0, 30.0])
def test_linear_trunks_trained_to_the_end_are_the_tethered_ridge(strength):
    inputs, labels = linear_tasks()
    module = SoftSharing(
        ["a", "b", "c"], 5, 1, linear_trunk, strength=strength
    ).double()
    optimizer = torch.optim.LBFGS(
        module.parameters(),
        lr=1,
        max_iter=1000,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=0,
    )

    def closure():
        optimizer.zero_grad()
        outputs = [module(x.unsqueeze(1)) for x in inputs]
        loss = outputs[0].penalty
        for task, output, y in zip(module.tasks, outputs, labels, strict=True):
            loss = loss + (output.features[task].flatten() - y).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = torch.cat([trunk[0].weight for trunk in module.trunks.values()])
    torch.testing.assert_close(
        found, tethered_ridge(inputs, labels, strength), rtol=1e-6, atol=1e-7
    )


def test_the_ends_of_the_tether_are_separate_and_pooled_least_squares():
    inputs, labels = linear_tasks()
    loose, tight = (
        tethered_ridge(inputs, labels, strength) for strength in (1e-10, 1e10)
    )
    for w, x, y in zip(loose, inputs, labels, strict=True):
        torch.testing.assert_close(
            w, torch.linalg.lstsq(x, y.unsqueeze(1)).solution[:, 0]
        )
    # Pooled, each task counts alike, however many samples it has.
    x = torch.cat([x / len(x) ** 0.5 for x in inputs])
    y = torch.cat([y / len(y) ** 0.5 for y in labels]).unsqueeze(1)
    pooled = torch.linalg.lstsq(x, y).solution.T
    torch.testing.assert_close(tight, pooled.expand(3, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(1, 7), (3, 7), (4, 2), (3, 1)])
def test_the_trace_norm_is_the_sum_of_singular_values(shape, scale):
    theta = (scale * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    value = trace_norm(theta)
    torch.testing.assert_close(value, torch.linalg.svdvals(theta).sum())
    (gradient,) = torch.autograd.grad(value, theta)
    (expected,) = torch.autograd.grad(torch.linalg.matrix_norm(theta, "nuc"), theta)
    torch.testing.assert_close(gradient, expected)
    if shape[0] == 1:
        torch.testing.assert_close(value, theta.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_the_trace_norms_gradient_is_a_subgradient_at_every_rank(rank, dtype):
    factors = torch.randn(4, rank, dtype=dtype), torch.randn(rank, 6, dtype=dtype)
    theta = (factors[0] @ factors[1]).requires_grad_()
    value = trace_norm(theta)
    (gradient,) = torch.autograd.grad(value, theta)
    # A subgradient of a norm has dual norm at most one and attains the norm at this
    # point.
    assert torch.linalg.matrix_norm(gradient.double(), 2) < 1 + 1e-5
    torch.testing.assert_close((gradient * theta).sum(), value)
    for size in (1e-3, 1.0, 10.0):
        moved = theta.detach() + size * torch.randn_like(theta)
        assert trace_norm(moved) >= value + (
            gradient * (moved - theta)
        ).sum() - 1e-4 * (1 + size)


def test_the_trace_norm_where_tasks_are_equal_zero_or_orthogonal():
    row = torch.randn(9, dtype=torch.float64)
    equal = row.expand(4, 9).clone().requires_grad_()
    value = trace_norm(equal)
    value.backward()
    # One singular value, √T ‖row‖; its gradient shrinks all tasks alike.
    torch.testing.assert_close(value, 2 * row.norm())
    torch.testing.assert_close(equal.grad, (row / (2 * row.norm())).expand(4, 9))
    zero = torch.zeros(4, 9, requires_grad=True)
    trace_norm(zero).backward()
    assert zero.grad.eq(0).all()
    # Rows of one length and at right angles: all singular values are equal.
    frame = (
        3 * torch.linalg.qr(torch.randn(9, 4, dtype=torch.float64)).Q.T
    ).requires_grad_()
    trace_norm(frame).backward()
    torch.testing.assert_close(frame.grad, frame.detach() / 3)


def test_the_trace_norm_pulls_tasks_onto_few_directions():
    """Denoising by the proximal problem: the solution is soft-thresholded singular
    values, of lower rank."""
    noisy = torch.randn(4, 2, dtype=torch.float64) @ torch.randn(
        2, 12, dtype=torch.float64
    )
    noisy = noisy + 0.1 * torch.randn(4, 12, dtype=torch.float64)
    u, s, vt = torch.linalg.svd(noisy, full_matrices=False)
    expected = u * (s - 0.6).clamp(min=0) @ vt
    theta = noisy.clone().requires_grad_()
    for step in range(1500):
        loss = 0.5 * (theta - noisy).square().sum() + 0.6 * trace_norm(theta)
        (gradient,) = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            theta -= 0.2 / (1 + 0.1 * step) * gradient
    assert ((s - 0.6) > 0).sum() == 2
    torch.testing.assert_close(theta.detach(), expected, atol=5e-3, rtol=0)


# Cross-stitch


@any_number
def test_stitches_start_near_the_identity_and_convex(count):
    stitches = CrossStitch(TASKS[:count], 6, 8, conv_trunk)(
        torch.randn(2, 3, 6)
    ).weights["stitches"]
    assert stitches.shape == (2, count, count)
    torch.testing.assert_close(stitches.sum(-1), torch.ones(2, count))
    expected = torch.full((count, count), 0.1 / max(count - 1, 1)).fill_diagonal_(
        0.9 if count > 1 else 1.0
    )
    torch.testing.assert_close(stitches[1], expected)
    for own in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="own is a weight in"):
            CrossStitch(TASKS[:count], 6, 8, own=own)


@every_trunk
def test_identity_stitches_are_separate_trunks(trunk):
    module, z = CrossStitch(TASKS, 6, 8, trunk, own=1.0), torch.randn(5, 3, 6)
    for task, h in module(z).features.items():
        torch.testing.assert_close(h, module.trunks[task](z))


@every_trunk
def test_equal_stitches_give_every_task_the_mean_of_each_stage(trunk):
    module, z = (
        CrossStitch(TASKS, 6, 8, trunk, own=1 / len(TASKS)),
        torch.randn(5, 3, 6),
    )
    x = z
    for stages in zip(*module.trunks.values(), strict=True):
        x = sum(stage(x) for stage in stages) / len(TASKS)
    for h in module(z).features.values():
        torch.testing.assert_close(h, x)


def test_stitches_written_out_for_two_tasks():
    module, z = CrossStitch(["b", "a"], 6, 8), torch.randn(5, 3, 6)
    with torch.no_grad():
        module.stitches.copy_(
            torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[-1.0, 0.5], [0.0, 2.0]]])
        )
    a, b = module.trunks["a"], module.trunks["b"]
    xa, xb = a[0](z), b[0](z)
    xa, xb = a[1](xa + 2 * xb), b[1](3 * xa + 4 * xb)
    features = module(z).features
    torch.testing.assert_close(features["a"], -xa + 0.5 * xb)
    torch.testing.assert_close(features["b"], 2 * xb)


# Task attention


@every_trunk
def test_masks_lie_between_zero_and_one_and_select_from_the_trunk(trunk):
    module, z = TaskAttention(TASKS, 6, 8, trunk), torch.randn(5, 3, 6)
    shared = module(z)
    widths = {"conv": 5}.get(trunk.__name__.removesuffix("_trunk"), 8), 8
    assert list(shared.weights) == ["attention1", "attention2"]
    for width, mask in zip(widths, shared.weights.values(), strict=True):
        assert mask.shape == (5, 3, 4, width) and ((mask > 0) & (mask < 1)).all()
    for t, task in enumerate(module.tasks):
        expected = shared.weights["attention2"][:, :, t] * module.trunk(z)
        torch.testing.assert_close(shared.features[task], expected)


def test_open_masks_are_hard_sharing():
    module, z = TaskAttention(TASKS, 6, 8), torch.randn(5, 3, 6)
    with torch.no_grad():
        for masks in module.masks.values():
            masks[-1][2].bias += 50
    for h in module(z).features.values():
        torch.testing.assert_close(h, module.trunk(z))


def test_masks_written_out_for_one_token():
    module, z = TaskAttention(["b", "a"], 6, 8, conv_trunk), torch.randn(1, 1, 6)
    p1 = module.trunk[0](z)
    p2 = module.trunk[1](p1)
    (V, _), module_masks = module.pass_on[0], module.masks["b"]
    (W1, _, X1, _), (W2, _, X2, _) = module_masks
    s1 = torch.sigmoid(X1(W1(p1[0, 0]).relu())) * p1[0, 0]
    s2 = torch.sigmoid(X2(W2(torch.cat([p2[0, 0], V(s1).relu()])).relu())) * p2[0, 0]
    torch.testing.assert_close(module(z).features["b"][0, 0], s2)


def test_measuring_a_trunk_leaves_it_in_training_and_draws_nothing():
    def trunk(in_dim, dim):
        return nn.Sequential(nn.Linear(in_dim, dim), nn.Dropout(0.5))

    torch.manual_seed(0)
    module = TaskAttention(["a"], 6, 8, trunk)
    torch.manual_seed(0)
    assert torch.equal(module.trunk[0].weight, trunk(6, 8)[0].weight)
    assert all(part.training for part in module.modules())


# Experts


@every_trunk
@any_number
def test_one_expert_is_hard_sharing_through_a_gate_of_one(trunk, count):
    module, z = MMoE(TASKS[:count], 6, 8, trunk, experts=1), torch.randn(5, 3, 6)
    hard = HardSharing(TASKS[:count], 6, 8, trunk)
    hard.trunk.load_state_dict(module.experts[0].state_dict())
    shared, expected = module(z), hard(z)
    assert torch.equal(shared.weights["gates"], torch.ones(5, 3, count, 1))
    for task in module.tasks:
        torch.testing.assert_close(shared.features[task], expected.features[task])


def test_gates_and_experts_written_out_for_one_token():
    module, z = MMoE(["b", "a"], 6, 8, experts=3), torch.randn(4, 2, 6)
    shared = module(z)
    gates = shared.weights["gates"]
    assert gates.shape == (4, 2, 2, 3) and gates.min() > 0
    torch.testing.assert_close(gates.sum(-1), torch.ones(4, 2, 2))
    for t, task in enumerate("ab"):  # alphabetical
        logits = module.gates[task].weight @ z[1, 0]
        g = logits.exp() / logits.exp().sum()
        torch.testing.assert_close(gates[1, 0, t], g)
        expected = sum(g[e] * module.experts[e](z[1, 0]) for e in range(3))
        torch.testing.assert_close(shared.features[task][1, 0], expected)
    with pytest.raises(ValueError, match="experts needs to be at least 1, got 0"):
        MMoE(["a"], 6, 8, experts=0)


def test_gates_without_an_opinion_give_the_mean_of_the_experts():
    module, z = MMoE(TASKS, 6, 8, experts=5), torch.randn(4, 2, 6)
    for gate in module.gates.values():
        nn.init.zeros_(gate.weight)
    mean = torch.stack([expert(z) for expert in module.experts]).mean(0)
    for h in module(z).features.values():
        torch.testing.assert_close(h, mean)


@pytest.mark.parametrize("levels", [1, 2, 3])
@any_number
def test_gates_of_ple_see_their_own_and_the_shared_experts(levels, count):
    own, common = 2, 3
    module = PLE(
        TASKS[:count], 6, 8, levels=levels, task_experts=own, shared_experts=common
    )
    weights = module(torch.randn(4, 2, 6)).weights
    assert list(weights) == [f"gates{level}" for level in range(1, levels + 1)]
    for level, gates in enumerate(weights.values(), 1):
        last = level == levels
        assert gates.shape == (4, 2, count + (not last), count * own + common)
        torch.testing.assert_close(gates.sum(-1), torch.ones(gates.shape[:-1]))
        for t in range(count):
            sees = torch.zeros(count * own + common, dtype=torch.bool)
            sees[t * own : (t + 1) * own] = sees[-common:] = True
            assert torch.equal(gates[..., t, :] > 0, sees.expand(4, 2, -1))
        if not last:  # the shared gate sees every expert
            assert (gates[..., count, :] > 0).all()


def test_ple_written_out_for_two_levels_and_one_token():
    module, z = PLE(["b", "a"], 6, 8), torch.randn(1, 1, 6)
    first, last = module.levels

    def gated(gate, x, experts):
        w = (gate.weight @ x).softmax(0)
        return sum(w[e] * expert for e, expert in enumerate(experts))

    x = z[0, 0]
    a, b, s = (
        first.experts["a"][0](x),
        first.experts["b"][0](x),
        first.shared_experts[0](x),
    )
    xs = gated(first.shared_gate, x, [a, b, s])
    for task, own in (("a", a), ("b", b)):
        xt = gated(first.gates[task], x, [own, s])
        h = gated(
            last.gates[task],
            xt,
            [last.experts[task][0](xt), last.shared_experts[0](xs)],
        )
        torch.testing.assert_close(module(z).features[task][0, 0], h)
    assert last.shared_gate is None


def test_one_level_of_ple_for_one_task_is_a_mixture_of_experts():
    ple, moe = PLE(["a"], 6, 8, levels=1, task_experts=2), MMoE(["a"], 6, 8, experts=3)
    experts = [*ple.levels[0].experts["a"], *ple.levels[0].shared_experts]
    for ours, theirs in zip(moe.experts, experts, strict=True):
        ours.load_state_dict(theirs.state_dict())
    moe.gates["a"].load_state_dict(ple.levels[0].gates["a"].state_dict())
    z = torch.randn(5, 3, 6)
    torch.testing.assert_close(ple(z).features["a"], moe(z).features["a"])
    for name in ("levels", "task_experts", "shared_experts"):
        with pytest.raises(ValueError, match=f"{name} needs to be at least 1, got 0"):
            PLE(["a"], 6, 8, **{name: 0})


# Shared and private


def test_the_two_halves_and_the_penalty_between_them():
    module, z = SharedPrivate(TASKS[:3], 6, 8, strength=0.3), torch.randn(5, 3, 6)
    shared = module(z)
    common = module.shared(z)
    expected = 0.0
    for task, h in shared.features.items():
        private = module.private[task](z)
        torch.testing.assert_close(h, torch.cat([common, private], -1))
        overlap = sum(
            torch.outer(c, p)
            for c, p in zip(common.view(15, 8), private.view(15, 8), strict=True)
        )
        expected += 0.3 * (overlap / 15).square().sum()
    torch.testing.assert_close(shared.penalty, expected)
    assert module.dim == 16 and SharedPrivate(TASKS, 6, 8, strength=0)(z).penalty == 0


def test_the_difference_is_zero_exactly_where_all_features_are_orthogonal():
    frame = torch.linalg.qr(torch.randn(12, 7, dtype=torch.float64)).Q
    mixed = [
        frame[:, :4] @ torch.randn(4, 4).double(),
        frame[:, 4:] @ torch.randn(3, 3).double(),
    ]
    assert difference(*mixed) < 1e-28
    # One private feature that is, for a part, a shared one is enough.
    mixed[1][:, 2] += 0.1 * frame[:, 0]
    overlap = 0.1 * mixed[0].T @ frame[:, 0] / 12
    torch.testing.assert_close(
        difference(*mixed).double(), overlap.square().sum(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_difference_does_not_depend_on_the_number_of_samples(scale):
    c, p = scale * torch.randn(6, 2, 4), torch.randn(6, 2, 3) / scale
    torch.testing.assert_close(
        difference(c, p), difference(c.repeat(5, 1, 1), p.repeat(5, 1, 1))
    )


def test_the_penalty_drives_the_private_features_out_of_the_shared_space():
    """Against it, private trunks unlearn what the shared one holds; without it, they
    keep it."""
    z, overlaps = torch.randn(200, 1, 6), {}
    for strength in (0.0, 10.0):
        torch.manual_seed(1)
        module = SharedPrivate(["a", "b"], 6, 4, linear_trunk, strength=strength)
        target = z[..., :2].sum(-1)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(300):
            shared = module(z)
            loss = sum(
                (h.sum(-1) - target).square().mean() for h in shared.features.values()
            )
            optimizer.zero_grad()
            (loss + shared.penalty).backward()
            optimizer.step()
        h = module(z).features["a"]
        assert loss < 0.01
        overlaps[strength] = difference(h[..., :4], h[..., 4:]).item()
    assert overlaps[10.0] < 0.01 * overlaps[0.0]
