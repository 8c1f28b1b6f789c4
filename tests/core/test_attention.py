"""The mathematics of attention: against loops, against PyTorch, who may look at whom,
and what it costs."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mtmm_lib.batch import Batch, Features
from mtmm_lib.encoders import SequenceEncoder
from mtmm_lib.fusion import (
    Attention,
    AttentionBlock,
    BottleneckFusion,
    CrossModalFusion,
    JointAttentionFusion,
    PerceiverFusion,
    attention_rollout,
)
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Regression
from mtmm_lib.training import fit, fit_many

DIMS = {"image": 3, "sound": 5, "text": 2}
LENGTHS = {"image": 4, "sound": 6, "text": 3}
FUSIONS = {
    "JointAttentionFusion": partial(JointAttentionFusion, layers=2),
    "CrossModalFusion": partial(CrossModalFusion, layers=2),
    "BottleneckFusion": partial(BottleneckFusion, bottleneck=3),
    "PerceiverFusion": partial(PerceiverFusion, layers=2),
}
every_fusion = pytest.mark.parametrize("build", FUSIONS.values(), ids=FUSIONS)


def problem(names=tuple(DIMS), n: int = 4, *, padded: bool = False):
    features = {}
    for name in names:
        tokens = torch.randn(n, LENGTHS[name], DIMS[name], dtype=torch.float64)
        lengths = 1 + torch.arange(n).unsqueeze(1) % LENGTHS[name]
        features[name] = Features(
            tokens, torch.arange(LENGTHS[name]) < lengths if padded else None
        )
    return {name: DIMS[name] for name in names}, features


def by_loops(module: Attention, x, context, valid):
    """Attention of one sample, number by number."""
    dim = x.shape[-1]
    d = dim // module.heads
    key, value = module.key_value.weight.split(dim)
    key_bias, value_bias = module.key_value.bias.split(dim)
    y, maps = (
        torch.empty_like(x),
        torch.zeros(module.heads, len(x), len(context), dtype=x.dtype),
    )
    for i, token in enumerate(x):
        joined = []
        for h in range(module.heads):
            part = slice(h * d, (h + 1) * d)
            q = module.query.weight[part] @ token + module.query.bias[part]
            scores = {}
            for j, other in enumerate(context):
                if valid[j]:
                    scores[j] = math.exp(
                        q @ (key[part] @ other + key_bias[part]) / math.sqrt(d)
                    )
            mean = torch.zeros(d, dtype=x.dtype)
            for j, score in scores.items():
                maps[h, i, j] = score / sum(scores.values())
                mean += maps[h, i, j] * (value[part] @ context[j] + value_bias[part])
            joined.append(mean)
        y[i] = module.mix.weight @ torch.cat(joined) + module.mix.bias
    return y, maps


@pytest.mark.parametrize("maps", [False, True])
def test_attention_is_what_the_loops_say(maps):
    module = Attention(8, 2).double()
    x, context = (
        torch.randn(3, 4, 8, dtype=torch.float64),
        torch.randn(3, 5, 8, dtype=torch.float64),
    )
    valid = torch.tensor(
        [[True] * 5, [True, False, True, True, False], [False] * 4 + [True]]
    )
    with torch.no_grad():
        y, weights = module(x, context, valid, maps=maps)
        assert (weights is not None) == maps
        for i in range(3):
            expected, expected_maps = by_loops(module, x[i], context[i], valid[i])
            torch.testing.assert_close(y[i], expected)
            if maps:
                torch.testing.assert_close(weights[i], expected_maps)


def test_attention_is_pytorchs():
    module, theirs = Attention(8, 4), nn.MultiheadAttention(8, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight[:] = torch.cat(
            [module.query.weight, module.key_value.weight]
        )
        theirs.in_proj_bias[:] = torch.cat([module.query.bias, module.key_value.bias])
        theirs.out_proj.weight[:], theirs.out_proj.bias[:] = (
            module.mix.weight,
            module.mix.bias,
        )
    x, context, valid = (
        torch.randn(3, 4, 8),
        torch.randn(3, 5, 8),
        torch.rand(3, 5) > 0.4,
    )
    valid[:, 0] = True
    expected, expected_maps = theirs(
        x, context, context, key_padding_mask=~valid, average_attn_weights=False
    )
    for maps in (False, True):
        y, weights = module(x, context, valid, maps=maps)
        torch.testing.assert_close(y, expected)
    torch.testing.assert_close(weights, expected_maps)


@pytest.mark.parametrize("maps", [False, True])
def test_attention_with_nothing_to_attend_to_is_zero(maps):
    module = Attention(8, 2)
    context = torch.randn(2, 5, 8, requires_grad=True)
    valid = torch.tensor([[True] * 5, [False] * 5])
    y, weights = module(torch.randn(2, 3, 8), context, valid, maps=maps)
    assert y[1].eq(0).all() and y[0].abs().sum() > 0
    assert not maps or weights[1].eq(0).all()
    y.square().sum().backward()
    assert context.grad[1].eq(0).all() and all(
        p.grad.isfinite().all() for p in module.parameters()
    )


def test_a_block_is_attention_and_a_perceptron_with_residuals():
    block = AttentionBlock(8, 2).double()
    x, context = (
        torch.randn(2, 3, 8, dtype=torch.float64),
        torch.randn(2, 5, 8, dtype=torch.float64),
    )

    def normal(v, layer):
        centred = v - v.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
        return centred / deviation * layer.weight + layer.bias

    for other in (context, None):
        seen = normal(x if other is None else other, block.norm)
        between = x + block.attention(normal(x, block.norm), seen)[0]
        norm, first, act, second = block.mlp
        expected = between + second(act(first(normal(between, norm))))
        torch.testing.assert_close(block(x, other)[0], expected)


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_have_to_divide_the_width(heads):
    with pytest.raises(
        ValueError,
        match=f"dim must be a multiple of heads, got dim=8 and heads={heads}",
    ):
        CrossModalFusion({"image": 3}, 8, heads=heads)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            partial(CrossModalFusion, layers=0),
            "CrossModalFusion needs at least one layer, got 0",
        ),
        (
            partial(BottleneckFusion, bottleneck=0),
            "bottleneck needs at least one token",
        ),
        (partial(PerceiverFusion, latents=0), "at least one latent token"),
    ],
)
def test_options_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build({"image": 3}, 8)


@pytest.mark.parametrize(
    "names", [("a", "b", "a_to_b"), ("a", "b_to_c", "a_to_b", "c")]
)
def test_two_pairs_of_one_name_are_refused(names):
    """Each pair has its own attention, and its own map under its name."""
    with pytest.raises(ValueError, match="two pairs have the same name"):
        CrossModalFusion(dict.fromkeys(names, 3), 8)


# Maps


@every_fusion
@pytest.mark.parametrize("names", [("image",), ("image", "sound"), tuple(DIMS)])
def test_maps_are_asked_for_and_change_nothing(build, names):
    dims, features = problem(names, padded=True)
    module = build(dims, 8, heads=2).double()
    plain = module(features)
    assert plain.weights == {}
    module.maps = True
    fused = module(features)
    torch.testing.assert_close(fused.features.tokens, plain.features.tokens)
    shapes = {name: tuple(weights.shape) for name, weights in fused.weights.items()}
    total = sum(LENGTHS[name] for name in names)
    assert (
        shapes
        == {
            CrossModalFusion: {
                **{
                    f"{s}_to_{t}": (4, 2, 2, LENGTHS[t], LENGTHS[s])
                    for s in names
                    for t in names
                    if s != t
                },
                **{name: (4, 2, 2, LENGTHS[name], LENGTHS[name]) for name in names},
            },
            JointAttentionFusion: {"attention": (4, 2, 2, total, total)},
            BottleneckFusion: {"attention": (4, 2, 2, total + 3, total + 3)},
            PerceiverFusion: {"cross": (4, 2, 2, 8, total), "latents": (4, 2, 2, 8, 8)},
        }[type(module)]
    )
    for name, weights in fused.weights.items():
        torch.testing.assert_close(
            weights.sum(-1), torch.ones(weights.shape[:-1], dtype=torch.float64)
        )
        if name == "latents":
            continue
        seen = {"cross": names, "attention": names}.get(name, [name.split("_to_")[0]])
        valid = torch.cat([features[m].valid for m in seen], 1)
        assert (
            weights[..., : valid.shape[1]]
            .masked_select(~valid[:, None, None, None])
            .eq(0)
            .all()
        )


@every_fusion
def test_maps_of_several_models_at_once(build):
    dims, features = problem(("image", "sound"))
    modules = [build(dims, 8, heads=2, maps=True).double() for _ in range(2)]
    states, _ = stack_module_state(modules)
    tokens = {name: f.tokens for name, f in features.items()}

    def one(state, tokens):
        seen = {name: Features(x) for name, x in tokens.items()}
        return functional_call(modules[0], state, (seen,)).weights

    together = vmap(one, in_dims=(0, None))(states, tokens)
    for i, module in enumerate(modules):
        for name, weights in module(features).weights.items():
            torch.testing.assert_close(together[name][i], weights)


@every_fusion
def test_many_models_train_at_once_without_a_warning(build, recwarn):
    """The fused kernels have no rule for vmap and would say so at every step."""

    def make() -> Model:
        encoders = {
            name: SequenceEncoder(DIMS[name], 8, layers=1)
            for name in ("image", "sound")
        }
        fusion = build(dict.fromkeys(encoders, 8), 8)
        return Model(encoders, fusion, HardSharing(["y"], 8, 8), [Regression("y")])

    train = []
    for _ in range(2):
        inputs = {
            name: torch.randn(20, LENGTHS[name], DIMS[name])
            for name in ("image", "sound")
        }
        train.append(
            Batch(
                inputs,
                {"y": torch.randn(20)},
                {"image": torch.rand(20) < 0.7},
                {"sound": torch.randint(1, 7, (20,))},
            )
        )
    models = fit_many(make, train, seeds=[0, 1], epochs=2, batch_size=10)
    assert [str(warning.message) for warning in recwarn] == []
    torch.manual_seed(1)
    alone = make()
    fit(alone, train[1], epochs=2, batch_size=10, seed=1, progress=False)
    # Predictions, not parameters: a bias on all keys changes nothing, so rounding alone
    # moves it.
    together, by_itself = (m(train[1]).predictions["y"] for m in (models[1], alone))
    torch.testing.assert_close(together, by_itself, atol=1e-3, rtol=1e-3)


# Who may look at whom


def reach(module, features):
    """Modality of the result × modality of the input → whether the one depends on the
    other."""
    lengths = {name: f.tokens.shape[1] for name, f in features.items()}

    def kept(tokens):
        seen = {name: Features(x, features[name].valid) for name, x in tokens.items()}
        return dict(
            zip(
                lengths,
                module(seen).features.tokens.split(list(lengths.values()), 1),
                strict=True,
            )
        )

    with sdpa_kernel(SDPBackend.MATH):
        jacobian = jacrev(kept)({name: f.tokens for name, f in features.items()})
    return {
        (t, s): bool(jacobian[t][s].abs().max() > 1e-12)
        for t in lengths
        for s in lengths
    }


@pytest.mark.parametrize(
    "build", [JointAttentionFusion, CrossModalFusion, BottleneckFusion]
)
def test_every_modality_reaches_every_other(build):
    dims, features = problem(n=1)
    assert all(
        reach(build(dims, 8, heads=2, keeps_tokens=True).double(), features).values()
    )


def test_joint_attention_is_a_stack_over_all_tokens_and_a_mean_of_means():
    dims, features = problem(("image", "sound"), padded=True)
    module = JointAttentionFusion(dims, 8, heads=2, layers=2).double()
    everything = torch.cat(
        [
            f.tokens.masked_fill(~f.valid[..., None], 0) @ module.project[name].weight.T
            + module.project[name].bias
            for name, f in features.items()
        ],
        1,
    )
    valid = torch.cat([f.valid for f in features.values()], 1)
    for i in range(4):  # a sample alone, without any padding
        tokens, _ = module.stack(everything[i : i + 1, valid[i]])
        parts = tokens[0].split([int(f.valid[i].sum()) for f in features.values()])
        expected = torch.stack([part.mean(0) for part in parts]).mean(0)
        torch.testing.assert_close(module(features).features.pooled[i], expected)
    module.keeps_tokens = True
    kept = module(features).features
    assert torch.equal(kept.valid, valid) and kept.tokens.shape == (4, 10, 8)


def test_without_the_marks_joint_attention_takes_modalities_for_each_other():
    """The bias of a projection is all that tells whose a token is."""
    module = JointAttentionFusion({"a": 3, "b": 3}, 8, heads=2).double()
    module.project["b"].weight.data.copy_(module.project["a"].weight)
    x, y = (Features(torch.randn(4, 5, 3).double()) for _ in range(2))

    def swapped():
        return [module({"a": p, "b": q}).features.pooled for p, q in ((x, y), (y, x))]

    assert not torch.allclose(*swapped())
    module.project["b"].bias.data.copy_(module.project["a"].bias)
    torch.testing.assert_close(*swapped())


def test_one_layer_of_bottlenecks_exchanges_nothing():
    dims, features = problem(n=1)
    module = BottleneckFusion(dims, 8, heads=2, layers=1, keeps_tokens=True).double()
    assert all(
        reached == (t == s) for (t, s), reached in reach(module, features).items()
    )


def test_modalities_exchange_through_the_bottleneck_only():
    dims, features = problem(("image", "sound"), n=1)
    module = BottleneckFusion(dims, 8, heads=2, bottleneck=3, maps=True).double()
    image, sound = slice(0, 4), slice(4, 10)
    weights = module(features).weights["attention"]
    assert (
        weights[..., image, sound].eq(0).all()
        and weights[..., sound, image].eq(0).all()
    )
    assert (weights[..., :10, 10:] > 0).all() and (weights[..., 10:, :] > 0).all()

    # All that the sound can change about the image passes through K·D numbers.
    small = BottleneckFusion(dims, 4, heads=2, bottleneck=1, keeps_tokens=True).double()

    def what_the_image_becomes(sound):
        seen = {"image": features["image"], "sound": Features(sound)}
        return small(seen).features.tokens[:, image].flatten()

    with sdpa_kernel(SDPBackend.MATH):
        jacobian = jacrev(what_the_image_becomes)(features["sound"].tokens).flatten(1)
    assert (
        jacobian.shape == (16, 30)
        and torch.linalg.matrix_rank(jacobian, rtol=1e-9) <= 4
    )


def test_cross_modal_attention_needs_no_order_of_the_source():
    dims, features = problem(("image", "sound"))
    module = CrossModalFusion(dims, 8, heads=2).double()
    shuffled = {
        **features,
        "sound": Features(features["sound"].tokens[:, torch.randperm(6)]),
    }
    torch.testing.assert_close(
        module(shuffled).features.tokens, module(features).features.tokens
    )


def test_kept_tokens_are_what_the_sum_is_made_of():
    dims, features = problem(padded=True)
    module = CrossModalFusion(dims, 8, heads=2).double()
    kept = CrossModalFusion(dims, 8, heads=2, keeps_tokens=True).double()
    kept.load_state_dict(module.state_dict())
    result = kept(features).features
    parts = zip(
        result.tokens.split([4, 6, 3], 1), result.valid.split([4, 6, 3], 1), strict=True
    )
    means = [Features(tokens, valid).pooled for tokens, valid in parts]
    torch.testing.assert_close(sum(means), module(features).features.pooled)


@pytest.mark.parametrize("build", [BottleneckFusion, PerceiverFusion])
def test_an_absent_modality_is_as_if_the_fusion_had_been_built_without_it(build):
    dims, features = problem()
    module = build(dims, 8).double()
    rest = {name: f for name, f in features.items() if name != "sound"}
    without = build({name: DIMS[name] for name in rest}, 8).double()
    without.load_state_dict(
        {key: v for key, v in module.state_dict().items() if "sound" not in key}
    )
    less = module(features, {"sound": torch.zeros(4, dtype=torch.bool)}).features.pooled
    torch.testing.assert_close(without(rest).features.pooled, less)


def test_an_absent_source_gives_nothing_and_an_absent_target_has_no_term():
    dims, features = problem(("image", "sound"))
    module = CrossModalFusion(dims, 8, heads=2).double()
    less = module(features, {"sound": torch.zeros(4, dtype=torch.bool)}).features.pooled
    x = module.project["image"](features["image"].tokens)
    stack = module.cross["sound_to_image"]
    for block in stack.blocks:
        x = x + block.mlp(x)
    own, _ = module.own["image"](stack.norm(x))
    torch.testing.assert_close(module.mix["image"](own).mean(1), less)


# Rollout


def test_rollout_follows_the_paths():
    maps = torch.rand(2, 3, 2, 4, 4, dtype=torch.float64).softmax(-1)
    rollout = attention_rollout(maps)
    torch.testing.assert_close(rollout.sum(-1), torch.ones(2, 4, dtype=torch.float64))
    # A token reaches another one by any path through the layers, staying with one half
    # in each.
    step = maps.mean(2) / 2 + torch.eye(4) / 2
    for i in range(4):
        for j in range(4):
            paths = sum(
                step[0, 2, i, a] * step[0, 1, a, b] * step[0, 0, b, j]
                for a in range(4)
                for b in range(4)
            )
            torch.testing.assert_close(rollout[0, i, j], paths)


def test_rollout_in_closed_form():
    identity = torch.eye(5).expand(1, 4, 2, 5, 5)
    torch.testing.assert_close(attention_rollout(identity)[0], torch.eye(5))
    # Uniform attention: after N layers a token has kept 2^-N of itself, and the rest is
    # everybody's.
    uniform = torch.full((1, 4, 2, 5, 5), 0.2)
    expected = torch.eye(5) / 16 + (1 - 1 / 16) * 0.2
    torch.testing.assert_close(attention_rollout(uniform)[0], expected)
    with pytest.raises(
        ValueError, match=r"shape \[B, N, H, L, L\], got \[1, 2, 2, 3, 4\]"
    ):
        attention_rollout(torch.rand(1, 2, 2, 3, 4))


# Cost


def cost(build, lengths) -> int:
    """Operations of one forward pass over one sample. Fused attention is not counted on
    the CPU; maps are."""
    module = build(dict.fromkeys(lengths, 8), 8, heads=2)
    module.maps = True
    features = {
        name: Features(torch.randn(1, length, 8)) for name, length in lengths.items()
    }
    with FlopCounterMode(display=False) as counter:
        module(features)
    return counter.get_total_flops()


def growth(build, *sizes: dict[str, int]) -> tuple[int, int]:
    """What the second and the third step from size to size add to the cost."""
    costs = [cost(build, lengths) for lengths in sizes]
    return costs[1] - costs[0], costs[2] - costs[1]


def test_cross_attention_is_quadratic_in_tokens():
    first, second = growth(CrossModalFusion, *({"a": n, "b": n} for n in (16, 32, 48)))
    # Two cross-attentions and two self-attentions, each with 2·2·D operations per query
    # and key.
    per_pair = 4 * 4 * 8
    assert second - first == per_pair * (16**2 - 2 * 32**2 + 48**2)


def test_joint_attention_is_quadratic_in_all_tokens_together():
    sizes = ({"a": n, "b": n} for n in (16, 32, 48))
    first, second = growth(JointAttentionFusion, *sizes)
    assert second - first == 4 * 8 * (32**2 - 2 * 64**2 + 96**2)


def test_the_perceiver_is_linear_in_tokens():
    first, second = growth(PerceiverFusion, *({"a": n, "b": n} for n in (16, 32, 48)))
    assert first == second > 0


def test_what_a_bottleneck_adds_is_linear_in_tokens():
    """Each modality attends to itself at quadratic cost; meeting the others costs K per
    token."""

    def exchange(n: int) -> int:
        alone = sum(
            cost(BottleneckFusion, {name: n}) - cost(BottleneckFusion, {name: 1})
            for name in "ab"
        )
        return cost(BottleneckFusion, {"a": n, "b": n}) - alone

    def keys_of_the_bottleneck(n: int) -> int:
        few, many = (
            cost(partial(BottleneckFusion, bottleneck=k), {"a": n, "b": n})
            for k in (4, 8)
        )
        return many - few

    assert exchange(16) == exchange(32) == exchange(64), (
        "two modalities cost the sum of each alone"
    )
    first, second, third = (keys_of_the_bottleneck(n) for n in (16, 32, 48))
    assert second - first == third - second > 0
    # Each modality's tokens alone still see each other.
    first, second = growth(BottleneckFusion, *({"a": n, "b": n} for n in (16, 32, 48)))
    assert second - first == 2 * 2 * 4 * 8 * (16**2 - 2 * 32**2 + 48**2)
