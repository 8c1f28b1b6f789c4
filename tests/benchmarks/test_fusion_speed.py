"""What fusions cost, as ratios measured in one run. `make bench` tests them; a table is
printed by

OMP_NUM_THREADS=1 python tests/benchmarks/test_fusion_speed.py
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from mtmm_lib.batch import Features
from mtmm_lib.fusion import (
    ALL,
    Attention,
    AttentionFusion,
    BottleneckFusion,
    ConcatFusion,
    CrossModalFusion,
    Fusion,
    LowRankFusion,
    PerceiverFusion,
    TensorFusion,
)

BATCH, WIDTH, DIM = 64, 16, 32
TOKENS = (16, 64, 256, 1024)
WITH_ATTENTION = (CrossModalFusion, BottleneckFusion, PerceiverFusion)


def problem(
    modalities: int, tokens: int, batch: int, width: int
) -> tuple[dict[str, int], dict[str, Features]]:
    names = "abcd"[:modalities]
    features = {
        m: Features(torch.randn(batch, tokens, width, requires_grad=True))
        for m in names
    }
    return dict.fromkeys(names, width), features


def step(module: Fusion, features: dict[str, Features]) -> None:
    """A pass forwards and one backwards, down to the features."""
    module(features).features.tokens.square().mean().backward()


def times(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, taken turn by turn, so that what else the machine
    does meets all."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, run in steps.items():
            start = time.process_time()
            run()
            if turn:  # the first one warms up
                found[name].append(time.process_time() - start)
    return {name: median(seconds) for name, seconds in found.items()}


def kept_for_backward(module: Fusion, features: dict[str, Features]) -> int:
    """Bytes that the forward pass keeps for the backward pass, beside parameters and
    inputs."""
    known = {p.data_ptr() for p in module.parameters()} | {
        f.tokens.data_ptr() for f in features.values()
    }
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = module(features)
    del result
    return sum(kept.values())


def costs(modalities: int, rounds: int = 30) -> dict[str, dict[str, float]]:
    """Fusion → its time, parameters and memory as multiples of concatenation's."""
    dims, features = problem(modalities, 8, BATCH, WIDTH)
    plain = ConcatFusion(dims, DIM)

    def numbers(module: Fusion) -> int:
        return sum(p.numel() for p in module.parameters())

    found = {}
    for name, cls in ALL.items():
        if name == "FiLMFusion" and modalities != 2:
            continue
        module = cls(dims, DIM)
        # Each beside concatenation alone: the tensor's memory would slow down whoever
        # comes next.
        both = {
            "plain": lambda: step(plain, features),
            "it": lambda m=module: step(m, features),
        }
        seconds = times(both, rounds)
        found[name] = {
            "time": seconds["it"] / seconds["plain"],
            "parameters": numbers(module) / numbers(plain),
            "memory": kept_for_backward(module, features)
            / kept_for_backward(plain, features),
        }
    return found


class Theirs(nn.Module):
    """PyTorch's attention with the parameters of ours, in its place."""

    def __init__(self, ours: Attention) -> None:
        super().__init__()
        dim = ours.query.in_features
        self.attention = nn.MultiheadAttention(dim, ours.heads, batch_first=True)
        with torch.no_grad():
            self.attention.in_proj_weight[:] = torch.cat(
                [ours.query.weight, ours.key_value.weight]
            )
            self.attention.in_proj_bias[:] = torch.cat(
                [ours.query.bias, ours.key_value.bias]
            )
            self.attention.out_proj.load_state_dict(ours.mix.state_dict())

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        valid: Tensor | None = None,
        *,
        maps: bool = False,
    ) -> tuple[Tensor, None]:
        hidden = None if valid is None else ~valid
        return self.attention(
            x, context, context, key_padding_mask=hidden, need_weights=False
        )


def with_theirs(module: AttentionFusion) -> AttentionFusion:
    """The same fusion, with every attention replaced by PyTorch's."""
    theirs = copy.deepcopy(module)
    for part in list(theirs.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, Attention):
                setattr(part, name, Theirs(child))
    return theirs


def attention_times(
    cls: type[AttentionFusion], tokens: int, padded: bool, rounds: int
) -> dict[str, float]:
    """Seconds of a step for two modalities of so many tokens: ours, theirs, and ours
    with maps."""
    dims, features = problem(2, tokens, batch=max(1, 512 // tokens), width=64)
    if padded:
        features = {
            m: Features(
                f.tokens, torch.rand(f.tokens.shape[:2]).argsort(1) < 0.8 * tokens
            )
            for m, f in features.items()
        }
    ours = cls(dims, 64)
    theirs, mapped = with_theirs(ours), copy.deepcopy(ours)
    mapped.maps = True
    difference = ours(features).features.tokens - theirs(features).features.tokens
    assert difference.abs().max() < 1e-4, "not the same work"
    modules = {"ours": ours, "theirs": theirs, "with maps": mapped}
    return times(
        {name: lambda m=m: step(m, features) for name, m in modules.items()}, rounds
    )


@pytest.mark.parametrize("modalities", [2, 4])
def test_pooling_fusions_cost_little(benchmark, modalities):
    found = costs(modalities)
    for name, row in found.items():
        benchmark.extra_info[name] = {
            what: round(ratio, 2) for what, ratio in row.items()
        }
    dims, features = problem(modalities, 8, BATCH, WIDTH)
    benchmark(step, ConcatFusion(dims, DIM), features)
    for name in ("SumFusion", "GatedFusion", "LowRankFusion", "ProductOfExpertsFusion"):
        assert found[name]["time"] < 4, name
    assert found["ExpertFusion"]["time"] < 8
    # The tensor grows with the product of the widths, its low-rank form with their sum.
    kinds = TensorFusion, LowRankFusion
    weights = {
        cls: sum(p.numel() for p in cls(dims, DIM).parameters()) for cls in kinds
    }
    assert weights[TensorFusion] == DIM * (WIDTH + 1) ** modalities
    assert weights[LowRankFusion] == 4 * DIM * (WIDTH + 1) * modalities


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("cls", WITH_ATTENTION)
def test_attention_keeps_the_pace_of_pytorchs_own(benchmark, cls, tokens, padded):
    seconds = attention_times(cls, tokens, padded, rounds=15)
    ratio = seconds["ours"] / seconds["theirs"]
    benchmark.extra_info["against PyTorch's attention"] = round(ratio, 3)
    benchmark.extra_info["with maps"] = round(seconds["with maps"] / seconds["ours"], 2)
    dims, features = problem(2, tokens, batch=max(1, 512 // tokens), width=64)
    benchmark(step, cls(dims, 64), features)
    assert ratio <= 1.15


def main() -> None:
    for modalities in (2, 4):
        print(
            f"\nMultiples of concatenation: {modalities} modalities of width "
            f"{WIDTH}, {BATCH} samples"
        )
        print("| fusion | time | parameters | memory |\n|---|---|---|---|")
        for name, row in costs(modalities).items():
            print(
                f"| {name} | {row['time']:.1f} | {row['parameters']:.1f} | "
                f"{row['memory']:.1f} |"
            )
    for padded in (False, True):
        print(
            "\nMicroseconds of a step per "
            f"token{', a fifth of them padding' if padded else ''}"
        )
        print(
            "(in brackets: against PyTorch's attention, and what maps multiply the "
            "time by)"
        )
        print(
            f"| tokens per modality | {' | '.join(map(str, TOKENS))} "
            f"|\n|{'---|' * (len(TOKENS) + 1)}"
        )
        for cls in WITH_ATTENTION:
            columns = []
            for tokens in TOKENS:
                seconds = attention_times(cls, tokens, padded, rounds=9)
                ours, samples = seconds["ours"], max(1, 512 // tokens)
                columns.append(
                    f"{1e6 * ours / (2 * tokens * samples):.1f} "
                    f"({ours / seconds['theirs']:.2f}, "
                    f"{seconds['with maps'] / ours:.1f})"
                )
            print(f"| {cls.__name__} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
