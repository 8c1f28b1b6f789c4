"""What holds for every fusion, attention included, and the mathematics of those that
pool."""

import itertools
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtmm_lib.batch import Features
from mtmm_lib.fusion import (
    ALL,
    BottleneckFusion,
    ConcatFusion,
    CrossModalFusion,
    ExpertFusion,
    FiLMFusion,
    GatedFusion,
    IdentityFusion,
    JointAttentionFusion,
    LowRankFusion,
    ModalityDropout,
    ProductOfExpertsFusion,
    SumFusion,
    TensorFusion,
)

DIMS = {"audio": 5, "image": 4, "text": 3, "touch": 2}
DIM = 8
LENGTHS = {"audio": 6, "image": 2, "text": 4, "touch": 3}
CASES = {
    **ALL,
    "FiLMFusion the other way": partial(FiLMFusion, condition="audio"),
    "JointAttentionFusion with tokens": partial(
        JointAttentionFusion, keeps_tokens=True
    ),
    "CrossModalFusion with tokens": partial(CrossModalFusion, keeps_tokens=True),
    "BottleneckFusion with tokens": partial(BottleneckFusion, keeps_tokens=True),
}
FOR_TWO = ("FiLMFusion", "FiLMFusion the other way")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

#: Every fusion with every number of modalities that it is defined for.
every_case = pytest.mark.parametrize(
    ("build", "modalities"),
    [
        pytest.param(build, m, id=f"{name}-{m}")
        for name, build in CASES.items()
        for m in (1, 2, 3, 4)
        if m == 2 or name not in FOR_TWO
    ],
)
with_others = pytest.mark.parametrize(
    ("build", "modalities"), [case for case in every_case.args[1] if case.values[1] > 1]
)
every_fusion = pytest.mark.parametrize("build", CASES.values(), ids=CASES)


def problem(modalities: int, n: int = 6, *, padded: bool = False, dtype=torch.float32):
    """Widths, and features of several tokens; with `padded`, of several lengths, and
    NaN beyond them."""
    dims = dict(itertools.islice(DIMS.items(), modalities))
    features = {}
    for name, d in dims.items():
        tokens, valid = torch.randn(n, LENGTHS[name], d, dtype=dtype), None
        if padded:
            lengths = 1 + torch.arange(n) % LENGTHS[name]
            valid = torch.arange(LENGTHS[name]) < lengths.unsqueeze(1)
            tokens = torch.where(valid.unsqueeze(2), tokens, torch.nan)
        features[name] = Features(tokens, valid)
    return dims, features


def presence(dims, n: int = 6):
    """Each modality absent for some samples, and some samples with all of them."""
    masks = {
        name: torch.arange(n) % (len(dims) + 1) != i for i, name in enumerate(dims)
    }
    return masks if len(dims) > 1 else {}


def read(fused):
    """A number that depends on every dimension of the result, unlike the length of a
    normalised vector."""
    pooled = fused.features.pooled
    return (
        (pooled * torch.arange(1.0, 1 + pooled.shape[1], device=pooled.device))
        .sum()
        .sin()
    )


@every_case
def test_shape_order_of_keys_single_samples_and_presence(build, modalities):
    dims, features = problem(modalities)
    module = build(dims, DIM)
    fused = module(features).features
    batch, _, width = fused.tokens.shape
    assert (batch, width) == (6, DIM == module.dim and DIM)
    if module.keeps_tokens:
        lengths = (
            [LENGTHS[module.modulated]]
            if isinstance(module, FiLMFusion)
            else map(LENGTHS.get, dims)
        )
        assert fused.tokens.shape[1] == sum(lengths)
    backwards = dict(reversed(features.items()))
    torch.testing.assert_close(module(backwards).features.tokens, fused.tokens)
    again = build(dict(reversed(dims.items())), DIM)
    again.load_state_dict(module.state_dict())
    torch.testing.assert_close(again(features).features.tokens, fused.tokens)
    one = {name: Features(f.tokens[:1]) for name, f in features.items()}
    torch.testing.assert_close(module(one).features.tokens, fused.tokens[:1])
    everyone = {name: torch.ones(6, dtype=torch.bool) for name in dims}
    torch.testing.assert_close(module(features, everyone).features.tokens, fused.tokens)


@every_case
@pytest.mark.parametrize("device", DEVICES)
def test_what_is_absent_or_padding_cannot_leak(build, modalities, device):
    """NaN there changes neither values nor gradients."""
    dims, features = problem(modalities, padded=True)
    module, present = build(dims, DIM).to(device), presence(dims)
    present = {name: mask.to(device) for name, mask in present.items()}
    results = []
    for filler in (0.0, torch.nan):
        leaves, seen = {}, {}
        for name, f in features.items():
            tokens = f.tokens.to(device).nan_to_num(filler)
            if name in present:
                tokens[~present[name]] = filler
            leaves[name] = tokens.requires_grad_()
            seen[name] = Features(tokens, f.valid.to(device))
        module.zero_grad()
        fused = module(seen, present)
        read(fused).backward()
        gradients = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        results.append(
            [fused.features.tokens, *(x.grad for x in leaves.values()), *gradients]
        )
        for name, x in leaves.items():
            assert x.grad[~seen[name].valid].eq(0).all(), "padding has a gradient"
            assert name not in present or x.grad[~present[name]].eq(0).all(), (
                "what is absent has a gradient"
            )
    for clean, dirty in zip(*results, strict=True):
        assert clean.isfinite().all() and torch.equal(clean, dirty)


@every_case
def test_a_padded_sequence_is_the_bare_sequence(build, modalities):
    dims, features = problem(modalities, padded=True, dtype=torch.float64)
    module = build(dims, DIM).double()
    whole = module(features).features.pooled
    for i in range(6):
        bare = {
            name: Features(f.tokens[i : i + 1, f.valid[i]])
            for name, f in features.items()
        }
        torch.testing.assert_close(module(bare).features.pooled[0], whole[i])


@with_others
def test_it_matters_who_is_there(build, modalities):
    dims, features = problem(modalities)
    module = build(dims, DIM)
    whole, less = (
        module(features, p).features.pooled
        for p in (None, {"image": torch.arange(6) % 2 == 0})
    )
    torch.testing.assert_close(less[::2], whole[::2])
    assert all(
        not torch.allclose(a, b) for a, b in zip(less[1::2], whole[1::2], strict=True)
    )


@every_case
def test_every_parameter_is_registered_learns_and_is_saved(build, modalities, tmp_path):
    dims, features = problem(modalities)
    module = build(dims, DIM)
    read(module(features, presence(dims))).backward()
    for name, parameter in module.named_parameters():
        if modalities == 1 and "missing" in name:
            continue
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    # A tensor that the result depends on, but that is no parameter, would differ in
    # another module.
    torch.save(module.state_dict(), tmp_path / "state.pt")
    again = build(dims, DIM)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(
        again(features).features.tokens, module(features).features.tokens
    )


@every_fusion
def test_names_widths_and_presence_are_checked(build):
    dims, features = problem(2)
    module = build(dims, DIM)
    with pytest.raises(
        ValueError, match=r"built for modalities of widths .* got \{'audio': 5\}"
    ):
        module({"audio": features["audio"]})
    with pytest.raises(ValueError, match=r"got \{'audio': 4, 'image': 4\}"):
        module({"audio": features["image"], "image": features["image"]})
    with pytest.raises(ValueError, match=r"present names \['text'\]"):
        module(features, {"text": torch.ones(6, dtype=torch.bool)})
    nobody = torch.arange(6) < 4
    with pytest.raises(
        ValueError, match=r"samples \[4, 5\] of the batch have no modality"
    ):
        module(features, {"audio": nobody, "image": nobody})
    with pytest.raises(ValueError, match="at least one modality"):
        build({}, DIM)


@every_fusion
@pytest.mark.parametrize("device", DEVICES)
def test_mixed_precision(build, device):
    dims, features = problem(2, padded=True)
    module = build(dims, DIM).to(device)
    features = {
        name: Features(f.tokens.to(device), f.valid.to(device))
        for name, f in features.items()
    }
    present = {name: mask.to(device) for name, mask in presence(dims).items()}
    exact = module(features, present).features.pooled
    with torch.autocast(device, torch.bfloat16):
        fused = module(features, present)
    assert (fused.features.pooled - exact).abs().max() < 0.05 * exact.abs().max()
    read(fused).backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


class Plain(nn.Module):
    """A fusion between plain tensors, as a deployed model has them."""

    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, tokens, valid, present):
        features = {name: Features(tokens[name], valid[name]) for name in tokens}
        return self.fusion(features, present).features.pooled


@every_fusion
def test_export_for_any_batch_size(build):
    dims, features = problem(2, padded=True)
    module = Plain(build(dims, DIM)).eval()

    def arguments(n: int):
        chosen = torch.arange(n) % 6
        tokens = {name: f.tokens[chosen] for name, f in features.items()}
        valid = {name: f.valid[chosen] for name, f in features.items()}
        return (
            tokens,
            valid,
            {name: mask[chosen] for name, mask in presence(dims).items()},
        )

    batch = torch.export.Dim("batch", min=2)
    shapes = tuple({name: {0: batch} for name in dims} for _ in range(3))
    program = torch.export.export(module, arguments(6), dynamic_shapes=shapes)
    for n in (6, 9):
        torch.testing.assert_close(
            program.module()(*arguments(n)), module(*arguments(n))
        )


@every_fusion
def test_several_models_at_once(build):
    """`torch.func.vmap` over the parameters, the samples and who is present, as
    `fit_many` does it."""
    dims, _ = problem(2)
    modules = [build(dims, DIM) for _ in range(3)]
    states, _ = stack_module_state(modules)
    problems = [problem(2, padded=True)[1] for _ in modules]
    tokens, valid = (
        {name: torch.stack([getattr(f[name], part) for f in problems]) for name in dims}
        for part in ("tokens", "valid")
    )
    present = {
        name: torch.stack([mask.roll(i) for i in range(3)])
        for name, mask in presence(dims).items()
    }

    def one(state, tokens, valid, present):
        features = {name: Features(tokens[name], valid[name]) for name in tokens}
        return functional_call(modules[0], state, (features, present)).features.pooled

    with sdpa_kernel(SDPBackend.MATH):
        together = vmap(one)(states, tokens, valid, present)
    for i, module in enumerate(modules):
        alone = module(
            problems[i], {name: mask[i] for name, mask in present.items()}
        ).features.pooled
        torch.testing.assert_close(together[i], alone)


@pytest.mark.parametrize(
    "fusion",
    [SumFusion, TensorFusion, LowRankFusion, ProductOfExpertsFusion, GatedFusion],
)
def test_an_absent_modality_is_as_if_it_had_been_zero_or_never_there(fusion):
    """What the docstrings say of an absent modality, against features that are
    there."""
    dims, features = problem(3)
    module = fusion(dims, DIM)
    present = {"image": torch.zeros(6, dtype=torch.bool)}
    less = module(features, present).features.pooled
    zero = {**features, "image": Features(torch.zeros_like(features["image"].tokens))}
    if fusion in (TensorFusion, LowRankFusion, GatedFusion):
        torch.testing.assert_close(module(zero).features.pooled, less)
    else:
        without = fusion({name: d for name, d in dims.items() if name != "image"}, DIM)
        without.load_state_dict(
            {k: v for k, v in module.state_dict().items() if "image" not in k}
        )
        rest = {name: f for name, f in features.items() if name != "image"}
        torch.testing.assert_close(without(rest).features.pooled, less)


def test_all_lists_every_fusion_under_its_name():
    assert len(ALL) == 12 and all(name == cls.__name__ for name, cls in ALL.items())
    assert ALL["CrossModalFusion"] is CrossModalFusion


# What the formulas say


def in_double(fusion, modalities: int, n: int = 6, **options):
    dims, features = problem(modalities, n, dtype=torch.float64)
    module = fusion(dims, DIM, **options).double()
    return module, features, {name: f.pooled for name, f in features.items()}


def test_sum_is_the_sum_of_what_each_modality_gives_alone():
    module, features, _ = in_double(SumFusion, 3)
    nobody, everyone = torch.zeros(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)
    alone = [
        module(
            features, {m: everyone if m == name else nobody for m in features}
        ).features.tokens
        for name in features
    ]
    torch.testing.assert_close(module(features).features.tokens, sum(alone))


def test_two_gates_sum_to_one_and_the_lone_modality_gets_all():
    module, features, z = in_double(GatedFusion, 2)
    present = {"image": torch.tensor([True] * 5 + [False])}
    fused = module(features, present)
    gates = fused.weights["gates"]
    torch.testing.assert_close(gates.sum(1), torch.ones(6, DIM, dtype=torch.float64))
    assert gates[5, 0].eq(1).all() and gates[5, 1].eq(0).all()
    # Written out for one sample, as the paper has it.
    a, b = z["audio"][0], z["image"][0]
    g = torch.sigmoid(module.gate.weight @ torch.cat([a, b]))
    expected = g * torch.tanh(module.project["audio"].weight @ a)
    expected = expected + (1 - g) * torch.tanh(module.project["image"].weight @ b)
    torch.testing.assert_close(fused.features.tokens[0, 0], expected)


@pytest.mark.parametrize("condition", ["audio", "image"])
def test_film_scales_and_shifts_every_token_of_the_other_modality(condition):
    module, features, z = in_double(FiLMFusion, 2, condition=condition)
    assert {module.condition, module.modulated} == {
        "audio",
        "image",
    } and module.condition == condition
    fused = module(features)
    for i in range(6):
        change, shift = (module.film.weight @ z[condition][i] + module.film.bias).split(
            DIM
        )
        torch.testing.assert_close(fused.weights["scale"][i], 1 + change)
        torch.testing.assert_close(fused.weights["shift"][i], shift)
        for token, result in zip(
            features[module.modulated].tokens[i], fused.features.tokens[i], strict=True
        ):
            h = module.project.weight @ token + module.project.bias
            torch.testing.assert_close(result, (1 + change) * h + shift)


def test_film_where_one_of_the_two_is_absent():
    module, features, z = in_double(FiLMFusion, 2)
    assert (module.modulated, module.condition) == ("audio", "image"), (
        "the second conditions the first"
    )
    nobody = torch.zeros(6, dtype=torch.bool)
    alone = module(features, {"image": nobody}).features.tokens
    torch.testing.assert_close(alone, module.project(features["audio"].tokens))
    valid = torch.ones(6, LENGTHS["audio"], dtype=torch.bool)
    valid[:, 2:] = False
    features["audio"] = Features(features["audio"].tokens, valid)
    shift_only = module(features, {"audio": nobody}).features.pooled
    torch.testing.assert_close(shift_only, module.film(z["image"])[:, DIM:])


@pytest.mark.parametrize("modalities", [1, 3, 4])
def test_film_is_for_two(modalities):
    dims, _ = problem(modalities)
    with pytest.raises(ValueError, match="defined for two modalities"):
        FiLMFusion(dims, DIM)
    with pytest.raises(
        ValueError, match=r"condition is one of \['audio', 'image'\], got 'text'"
    ):
        FiLMFusion(problem(2)[0], DIM, condition="text")


def test_tensor_fusion_is_a_sum_over_all_products():
    module, features, z = in_double(TensorFusion, 3, n=2)
    weight = module.mix.weight.reshape(DIM, 6, 5, 4)
    for i in range(2):
        a, b, c = (
            torch.cat([torch.ones(1), z[name][i]])
            for name in ("audio", "image", "text")
        )
        expected = sum(
            weight[:, p, q, r] * a[p] * b[q] * c[r]
            for p, q, r in itertools.product(range(6), range(5), range(4))
        )
        torch.testing.assert_close(module(features).features.tokens[i, 0], expected)


def test_a_tensor_too_large_is_refused_before_it_is_built():
    with pytest.raises(
        ValueError,
        match="has 17,850,625 products, so 1,142,440,000 weights.*LowRankFusion",
    ):
        TensorFusion(dict.fromkeys("abcd", 64), 64)
    assert LowRankFusion(dict.fromkeys("abcd", 64), 64).rank == 4


def test_low_rank_fusion_is_tensor_fusion_at_full_rank():
    whole, features, _ = in_double(TensorFusion, 2)
    # A matrix per dimension of the result: its singular vectors are the factors.
    u, s, v = torch.linalg.svd(whole.mix.weight.reshape(DIM, 6, 5), full_matrices=False)
    low = LowRankFusion(whole.dims, DIM, rank=5).double()
    for name, factor in (("audio", u * s.unsqueeze(1)), ("image", v.mT)):
        columns = factor.permute(2, 0, 1).reshape(5 * DIM, -1)
        low.factors[name].bias.data, low.factors[name].weight.data = (
            columns[:, 0],
            columns[:, 1:],
        )
    for present in (None, presence(whole.dims)):
        expected = whole(features, present).features.tokens
        torch.testing.assert_close(low(features, present).features.tokens, expected)

    whole, features, _ = in_double(TensorFusion, 3)
    # Three modalities: one rank for each pair of places in the first two.
    weight = whole.mix.weight.reshape(DIM, 30, 4)
    low = LowRankFusion(whole.dims, DIM, rank=30).double()
    first, second = (torch.eye(d, dtype=torch.float64) for d in (6, 5))
    columns = {
        "audio": first.repeat_interleave(5, 0).repeat_interleave(DIM, 0),
        "image": second.repeat(6, 1).repeat_interleave(DIM, 0),
        "text": weight.transpose(0, 1).flatten(0, 1),
    }
    for name, column in columns.items():
        low.factors[name].bias.data, low.factors[name].weight.data = (
            column[:, 0],
            column[:, 1:],
        )
    torch.testing.assert_close(
        low(features).features.tokens, whole(features).features.tokens
    )


def test_experts_are_weighted_by_a_softmax_gate():
    module, features, z = in_double(ExpertFusion, 3, experts=5)
    fused = module(features)
    x = torch.cat([z[name] for name in sorted(z)], 1)
    for i in range(6):
        scores = (module.gate.weight @ x[i] + module.gate.bias).exp()
        gates = scores / scores.sum()
        torch.testing.assert_close(fused.weights["gates"][i], gates)
        expected = sum(
            g * expert(x[i]) for g, expert in zip(gates, module.experts, strict=True)
        )
        torch.testing.assert_close(fused.features.tokens[i, 0], expected)


@pytest.mark.parametrize(
    ("fusion", "option", "message"),
    [
        (LowRankFusion, "rank", "rank is at least 1, got 0"),
        (ExpertFusion, "experts", "one expert, got 0"),
    ],
)
def test_options_out_of_range(fusion, option, message):
    with pytest.raises(ValueError, match=message):
        fusion({"a": 2}, 3, **{option: 0})


# Product of experts: the posterior of a linear Gaussian model


def posterior(observed: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """Mean and variance of z ~ N(0, 1) given x_m = z + N(0, σ_m²), from the joint
    covariance."""
    x, variance = torch.tensor(list(observed.values()), dtype=torch.float64).unbind(1)
    ones = torch.ones_like(x)
    gain = torch.linalg.solve(torch.outer(ones, ones) + variance.diag(), ones)
    return float(gain @ x), float(1 - gain.sum())


@pytest.mark.parametrize("missing", [(), ("audio",), ("image", "text")])
def test_product_of_experts_is_the_exact_posterior(missing):
    dims = {"audio": 1, "image": 1, "text": 1}
    variances = {"audio": 0.25, "image": 4.0, "text": 1e-6}
    module = ProductOfExpertsFusion(dims, 1).double()
    for name, expert in module.experts.items():  # x is the mean, the variance is known
        expert.weight.data[:] = torch.tensor([[1.0], [0.0]])
        expert.bias.data[1] = math.log(variances[name])
        expert.bias.data[0] = 0.0
    x = {name: torch.randn(5, 1, dtype=torch.float64) for name in dims}
    present = {name: torch.full((5,), name not in missing) for name in dims}
    fused = module({name: Features.vector(value) for name, value in x.items()}, present)
    for i in range(5):
        seen = {
            name: (x[name][i].item(), variances[name])
            for name in dims
            if name not in missing
        }
        mean, variance = posterior(seen)
        assert fused.features.tokens[i, 0].item() == pytest.approx(mean, rel=1e-9)
        assert fused.weights["log_variance"][i].exp().item() == pytest.approx(
            variance, rel=1e-9
        )
        # The shares are the precisions' parts of the whole, and the prior has the rest.
        shares = dict(zip(dims, fused.weights["shares"][i, :, 0].tolist(), strict=True))
        for name in dims:
            expected = variance / variances[name] if name in seen else 0
            assert shares[name] == pytest.approx(expected, rel=1e-9)
        assert 1 - sum(shares.values()) == pytest.approx(variance, rel=1e-6)
    assert torch.equal(fused.weights["mean"], fused.features.pooled)


@pytest.mark.parametrize("log_variance", [-300.0, 300.0])
def test_product_of_experts_at_extreme_certainty(log_variance):
    module = ProductOfExpertsFusion({"a": 1, "b": 1}, 1)
    for expert in module.experts.values():
        expert.weight.data[:] = torch.tensor([[1.0], [0.0]])
        expert.bias.data[:] = torch.tensor([0.0, log_variance])
    fused = module({name: Features.vector(torch.full((1, 1), 2.0)) for name in "ab"})
    fused.features.tokens.sum().backward()
    # Two who are certain of 2 outvote the prior; of two who know nothing, the prior's 0
    # is left.
    assert fused.features.tokens.item() == pytest.approx(
        2.0 if log_variance < 0 else 0.0
    )
    assert all(p.grad.isfinite().all() for p in module.parameters())


# What a fusion can express: XOR


CELLS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)))
XOR = (CELLS[:, 0] != CELLS[:, 1]).long()


def in_cells(features=CELLS):
    return {
        name: Features.vector(features[:, i : i + 1]) for i, name in enumerate("ab")
    }


def trained_on_xor(fusion, steps: int = 300):
    """Loss and number of cells that a fusion with a linear head on top gets right."""
    module, head = fusion({"a": 1, "b": 1}, DIM), nn.Linear(DIM, 2)
    optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = head(module(in_cells()).features.pooled)
        loss = F.cross_entropy(logits, XOR)
        loss.backward()
        optimizer.step()
    return loss.item(), (logits.argmax(1) == XOR).sum().item()


@pytest.mark.parametrize("fusion", [ConcatFusion, SumFusion])
def test_additive_fusion_stops_at_ln_2_on_xor(fusion):
    loss, right = trained_on_xor(fusion)
    assert loss == pytest.approx(math.log(2), abs=1e-5)
    assert right <= 3
    for scale in (0.1, 1.0, 100.0):
        for _ in range(30):
            module, head = (
                fusion({"a": 1, "b": 1}, DIM).double(),
                nn.Linear(DIM, 2).double(),
            )
            with torch.no_grad():
                for p in (*module.parameters(), *head.parameters()):
                    p.normal_(std=scale)
                logits = head(module(in_cells(CELLS.double())).features.pooled)
            assert F.cross_entropy(logits, XOR) >= math.log(2) - 1e-12
            assert (logits.argmax(1) == XOR).sum() <= 3


@pytest.mark.parametrize(
    "fusion",
    [
        TensorFusion,
        partial(LowRankFusion, rank=1),
        FiLMFusion,
        GatedFusion,
        ExpertFusion,
        ProductOfExpertsFusion,
    ],
)
def test_a_fusion_that_multiplies_solves_xor(fusion):
    loss, right = trained_on_xor(fusion)
    assert loss < 1e-3 and right == 4


def test_the_rank_of_low_rank_fusion_is_the_rank_of_the_interaction():
    """What rank R leaves unexplained is the singular values beyond R (Eckart and
    Young)."""
    walsh = torch.tensor(
        [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    ).double()
    first, second = (
        x.flatten()
        for x in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    )
    features = {
        "a": Features.vector(walsh[first, 1:]),
        "b": Features.vector(walsh[second, 1:]),
    }
    interaction = torch.tensor(
        [[1, 2, 0, 1], [0, 1, 3, 1], [2, 0, 1, 0], [1, 1, 0, -2]]
    ).double()
    # All functions of the two are columns of walsh, of mean square one and orthogonal
    # over the 16 cells.
    target = (walsh @ interaction @ walsh.T).flatten()
    singular = torch.linalg.svdvals(interaction)
    for rank in range(1, 5):
        module = LowRankFusion({"a": 3, "b": 3}, 1, rank=rank).double()
        optimizer = torch.optim.LBFGS(
            module.parameters(), max_iter=2000, tolerance_grad=1e-10
        )

        def closure():
            optimizer.zero_grad()  # noqa: B023
            loss = (module(features).features.pooled[:, 0] - target).square().mean()  # noqa: B023
            loss.backward()
            return loss

        optimizer.step(closure)
        assert closure().item() == pytest.approx(
            singular[rank:].square().sum().item(), abs=1e-6
        )


def test_xor_has_rank_one_and_a_sum_has_rank_two():
    ranks = {}
    for name, target in (("xor", CELLS.prod(1)), ("sum", CELLS.sum(1))):
        basis = (
            torch.stack([torch.ones(4), CELLS[:, 0]], 1),
            torch.stack([torch.ones(4), CELLS[:, 1]], 1),
        )
        interaction = torch.einsum("ni,nj,n->ij", *basis, target) / 4
        ranks[name] = torch.linalg.matrix_rank(interaction).item()
    assert ranks == {"xor": 1, "sum": 2}


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_modality_dropout_hides_at_the_stated_rate_and_never_all(modalities):
    seen = {}

    class Spy(SumFusion):
        def forward(self, features, present=None):
            seen["kept"] = present and torch.stack(
                [present[name] for name in self.dims], 1
            )
            return super().forward(features, present)

    n, p = 20_000, 0.4
    dims = dict(itertools.islice(DIMS.items(), modalities))
    features = {name: Features(torch.ones(n, 1, d)) for name, d in dims.items()}
    module = ModalityDropout(Spy(dims, 2), p)
    module(features)
    kept = seen["kept"].float()
    assert kept.sum(1).min() >= 1
    # A modality is hidden with probability p, unless all would be: then one in M of
    # them comes back.
    expected = 1 - p + p**modalities / modalities
    error = math.sqrt(expected * (1 - expected) / n)
    assert (kept.mean(0) - expected).abs().max() <= 5 * error
    if modalities == 2:
        half = torch.arange(n) % 2 == 0
        module(features, {"audio": half})
        assert not seen["kept"][~half, 0].any() and seen["kept"][~half, 1].all()
    module.eval()
    module(features)
    assert seen["kept"] is None, "in evaluation nothing is hidden"
    with pytest.raises(ValueError, match="probability"):
        ModalityDropout(SumFusion(dims, 2), 1.0)


@every_fusion
def test_modality_dropout_wraps_every_fusion(build):
    dims, features = problem(2, padded=True)
    module = ModalityDropout(build(dims, DIM), 0.5)
    present = presence(dims)
    spoiled = {
        name: Features(
            f.tokens.masked_fill(~present[name][:, None, None], torch.nan), f.valid
        )
        for name, f in features.items()
    }
    results = []
    for some in (features, spoiled):
        torch.manual_seed(1)
        results.append(module(some, present).features.tokens)
    assert torch.equal(*results) and results[0].isfinite().all()
    module.eval()
    assert torch.equal(
        module(features).features.tokens, module.fusion(features).features.tokens
    )


def test_the_identity_passes_one_modality_on():
    module, (dims, features) = IdentityFusion({"audio": 5}, 5), problem(1, padded=True)
    fused = module(features, {"audio": torch.ones(6, dtype=torch.bool)}).features
    tokens, valid = features["audio"].tokens, features["audio"].valid
    assert torch.equal(fused.valid, valid) and torch.equal(
        fused.tokens[valid], tokens[valid]
    )
    assert fused.tokens.isfinite().all() and not list(module.parameters())
    for widths, dim in (({"audio": 5, "image": 5}, 5), (dims, 6)):
        with pytest.raises(ValueError, match=f"one modality of width {dim}"):
            IdentityFusion(widths, dim)
