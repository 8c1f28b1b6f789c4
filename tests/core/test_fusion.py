import itertools
import math

import pytest
import torch

from mtmm_lib.batch import Features
from mtmm_lib.fusion import ALL, GatedFusion, ModalityDropout, SumFusion

DIMS = {"audio": 5, "image": 4, "text": 3, "touch": 2}
every_fusion = pytest.mark.parametrize("fusion", ALL.values(), ids=ALL)
any_number = pytest.mark.parametrize("modalities", [1, 2, 3, 4])


def problem(modalities: int, n: int = 6):
    dims = dict(itertools.islice(DIMS.items(), modalities))
    return dims, {name: Features(torch.randn(n, 2, d)) for name, d in dims.items()}


@every_fusion
@any_number
def test_shape_order_of_keys_single_samples_and_presence(fusion, modalities):
    dims, features = problem(modalities)
    module = fusion(dims, 7)
    fused = module(features)
    assert fused.features.tokens.shape == (6, 1, 7)
    backwards = dict(reversed(features.items()))
    torch.testing.assert_close(module(backwards).features.tokens, fused.features.tokens)
    one = {name: Features(f.tokens[:1]) for name, f in features.items()}
    torch.testing.assert_close(module(one).features.tokens, fused.features.tokens[:1])
    everyone = {name: torch.ones(6, dtype=torch.bool) for name in dims}
    torch.testing.assert_close(module(features, everyone).features.tokens, fused.features.tokens)


@every_fusion
@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize(
    "wrap", [lambda f: f, lambda f: ModalityDropout(f, 0.5).eval()], ids=["plain", "dropout"]
)
def test_an_absent_modality_cannot_leak(fusion, modalities, wrap):
    dims, features = problem(modalities)
    module = wrap(fusion(dims, 7))
    present = {"image": torch.tensor([True, False] * 3)}
    spoiled = dict(features)
    tokens = features["image"].tokens.clone()
    tokens[1::2] = torch.nan
    spoiled["image"] = Features(tokens.requires_grad_())
    clean, dirty = module(features, present).features.tokens, module(spoiled, present).features.tokens
    assert torch.equal(clean, dirty)
    dirty.sum().backward()
    assert tokens.grad[1::2].eq(0).all() and tokens.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    # It does matter whether the modality is there.
    assert not torch.allclose(module(features).features.tokens[1::2], clean[1::2])
    torch.testing.assert_close(module(features).features.tokens[::2], clean[::2])


@every_fusion
@any_number
def test_every_parameter_is_registered_learns_and_is_saved(fusion, modalities):
    dims, features = problem(modalities)
    module = fusion(dims, 7)
    present = {} if modalities == 1 else {name: torch.rand(6) < 0.5 for name in dims}
    if present:
        present["audio"] = ~torch.stack([present[m] for m in dims if m != "audio"]).any(0) | present["audio"]
        for i, name in enumerate(dims):  # each absent once, each present once
            present[name][i], present[name][(i + 1) % len(dims)] = False, True
    module(features, present).features.tokens.square().sum().backward()
    for name, parameter in module.named_parameters():
        if modalities == 1 and "missing" in name:
            continue
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    again = fusion(dims, 7)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(features).features.tokens, module(features).features.tokens)


@every_fusion
def test_names_and_presence_are_checked(fusion):
    dims, features = problem(2)
    module = fusion(dims, 7)
    with pytest.raises(ValueError, match="modalities"):
        module({"audio": features["audio"]})
    nobody = torch.zeros(6, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"samples \[0, 1, 2, 3, 4, 5\] have no modality"):
        module(features, {"audio": nobody, "image": nobody})
    with pytest.raises(ValueError, match="at least one modality"):
        fusion({}, 7)


def test_sum_is_the_sum_of_what_each_modality_gives_alone():
    dims, features = problem(3)
    module = SumFusion(dims, 7).double()
    features = {name: Features(f.tokens.double()) for name, f in features.items()}
    whole = module(features).features.tokens
    nobody, everyone = torch.zeros(6, dtype=torch.bool), torch.ones(6, dtype=torch.bool)
    alone = [
        module(features, {m: everyone if m == name else nobody for m in dims}).features.tokens
        for name in dims
    ]
    torch.testing.assert_close(whole, sum(alone))


def test_two_gates_sum_to_one_and_the_lone_modality_gets_all():
    dims, features = problem(2)
    module = GatedFusion(dims, 7)
    present = {"image": torch.tensor([True] * 5 + [False])}
    gates = module(features, present).weights["gates"]
    torch.testing.assert_close(gates.sum(1), torch.ones(6, 7))
    assert gates[5, 0].eq(1).all() and gates[5, 1].eq(0).all()
    # Written out for one sample, as the paper has it.
    a, b = features["audio"].pooled[0], features["image"].pooled[0]
    g = torch.sigmoid(module.gate.weight @ torch.cat([a, b]))
    expected = g * torch.tanh(module.project["audio"].weight @ a)
    expected = expected + (1 - g) * torch.tanh(module.project["image"].weight @ b)
    torch.testing.assert_close(module(features, present).features.tokens[0, 0], expected)


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_modality_dropout_hides_at_the_stated_rate_and_never_all(modalities):
    seen = {}

    class Spy(SumFusion):
        def forward(self, features, present=None):
            seen["kept"] = present and torch.stack([present[name] for name in self.dims], 1)
            return super().forward(features, present)

    n, p = 20_000, 0.4
    dims = dict(itertools.islice(DIMS.items(), modalities))
    features = {name: Features(torch.ones(n, 1, d)) for name, d in dims.items()}
    module = ModalityDropout(Spy(dims, 2), p)
    module(features)
    kept = seen["kept"].float()
    assert kept.sum(1).min() >= 1
    # A modality is hidden with probability p, unless all would be: then one in M of them comes back.
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
