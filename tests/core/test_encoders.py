import pytest
import torch
from torch import nn

from mtmm_lib.encoders import (
    ConvEncoder,
    IdentityEncoder,
    MLPEncoder,
    ModuleEncoder,
    PatchEncoder,
    SequenceEncoder,
)

CASES = {
    "mlp": (lambda: MLPEncoder(12, 8), torch.randn(5, 3, 4), 1),
    "identity": (
        lambda: IdentityEncoder(8),
        torch.randn(5, 2, 4, requires_grad=True),
        1,
    ),
    "conv": (lambda: ConvEncoder(2, 8), torch.randn(5, 2, 8, 8), 16),
    "conv, places": (
        lambda: ConvEncoder(2, 8, positions=(7, 6)),
        torch.randn(5, 2, 7, 6),
        12,
    ),
    "any module": (
        lambda: ModuleEncoder(nn.Sequential(nn.Flatten(), nn.Linear(12, 8)), 8),
        torch.randn(5, 3, 4),
        1,
    ),
    "any module, for each step": (
        lambda: ModuleEncoder(nn.Linear(3, 8), 8),
        torch.randn(5, 7, 3),
        7,
    ),
    "patch": (lambda: PatchEncoder((1, 8, 8), 4, 8), torch.randn(5, 1, 8, 8), 4),
    "patch oblong": (
        lambda: PatchEncoder((1, 8, 6), (4, 2), 8, layers=0),
        torch.randn(5, 1, 8, 6),
        6,
    ),
    "sequence": (lambda: SequenceEncoder(3, 8), torch.randn(5, 7, 3), 7),
    "ids": (
        lambda: SequenceEncoder(6, 8, vocabulary=20),
        torch.randint(0, 20, (5, 7)),
        7,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_encoder(name):
    build, x, tokens = CASES[name]
    encoder = build()
    features = encoder(x)
    assert features.tokens.shape == (5, tokens, encoder.dim == 8 and 8)
    # One sample alone gives what it gives in a batch: nothing mixes samples.
    torch.testing.assert_close(encoder(x[2:3]).tokens, features.tokens[2:3])
    features.tokens.square().sum().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
    again = build()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(x).tokens, features.tokens)


def test_the_identity_passes_the_input_on():
    x = torch.randn(4, 2, 3)
    encoder = IdentityEncoder(6)
    assert torch.equal(encoder(x).pooled, x.flatten(1)) and not list(
        encoder.parameters()
    )


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (1, 1)])
@pytest.mark.parametrize("channels", [(), (4,), (4, 5)])
def test_places_of_their_own_average_to_one_layer_over_the_flattened_map(
    shape, channels
):
    encoder = ConvEncoder(2, 6, channels=channels, positions=shape)
    image = torch.randn(3, 2, *shape)
    places = encoder.layers(image).flatten(2).transpose(1, 2)  # [B, L, D]
    expected = encoder.places(places.flatten(1))
    features = encoder(image)
    assert features.tokens.shape == places.shape
    torch.testing.assert_close(features.pooled, expected)
    # Each token is a function of its own place alone.
    weights = encoder.places.weight.view(6, -1, 6)
    last = places[:, -1] @ weights[:, -1].T * places.shape[1] + encoder.places.bias
    torch.testing.assert_close(features.tokens[:, -1], last)


def test_only_places_of_their_own_tell_where_something_is():
    """The same dot somewhere else, far enough from the border for padding not to
    show."""
    here, there = torch.zeros(2, 1, 1, 13, 13)
    here[..., 4, 4] = there[..., 8, 8] = 1
    free = ConvEncoder(1, 8)
    torch.testing.assert_close(free(here).pooled, free(there).pooled)
    placed = ConvEncoder(1, 8, positions=(13, 13))
    assert not torch.allclose(placed(here).pooled, placed(there).pooled)


def test_any_module_is_an_encoder_padding_included():
    encoder = ModuleEncoder(nn.Linear(3, 8), 8)
    x, lengths = torch.randn(4, 6, 3), torch.tensor([6, 2, 1, 0])
    clean = encoder(x, lengths)
    for row, length in enumerate(lengths):
        x[row, length:] = torch.nan
    dirty = encoder(x, lengths)
    assert torch.equal(clean.pooled, dirty.pooled)
    torch.testing.assert_close(dirty.pooled[1], encoder.module(x[1, :2]).mean(0))
    dirty.pooled.sum().backward()
    assert encoder.module.weight.grad.isfinite().all()


@pytest.mark.parametrize("vocabulary", [None, 20])
def test_padding_cannot_leak(vocabulary):
    encoder = SequenceEncoder(3, 8, vocabulary=vocabulary)
    x = torch.randn(4, 6, 3) if vocabulary is None else torch.randint(0, 20, (4, 6))
    lengths = torch.tensor([6, 2, 1, 0])
    spoiled = x.clone()
    for row, length in enumerate(lengths):
        spoiled[row, length:] = torch.nan if vocabulary is None else 13
    clean, dirty = encoder(x, lengths), encoder(spoiled, lengths)
    torch.testing.assert_close(clean.pooled, dirty.pooled)
    assert clean.pooled.isfinite().all()
    # A padded sequence pools to what the bare sequence pools to.
    torch.testing.assert_close(encoder(x[1:2, :2]).pooled, clean.pooled[1:2])
    dirty.pooled.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_dropout_acts_in_training_alone():
    encoder, x = MLPEncoder(4, 3, dropout=0.5), torch.randn(8, 4)
    assert not torch.equal(encoder(x).tokens, encoder(x).tokens)
    encoder.eval()
    assert torch.equal(encoder(x).tokens, encoder(x).tokens)


@pytest.mark.parametrize(
    ("encoder", "x", "message"),
    [
        (MLPEncoder(4, 3), torch.zeros(2, 5), r"4 numbers per sample, got \[2, 5\]"),
        (IdentityEncoder(4), torch.zeros(2, 5), r"4 numbers per sample, got \[2, 5\]"),
        (ConvEncoder(1, 3), torch.zeros(2, 8, 8), r"\[B, 1, H, W\]"),
        (
            ConvEncoder(1, 3, positions=(8, 6)),
            torch.zeros(2, 1, 6, 8),
            r"\[B, 1, 8, 6\], got \[2, 1, 6, 8\]",
        ),
        (
            ModuleEncoder(nn.Linear(5, 4), 3),
            torch.zeros(2, 5),
            r"Linear should return a tensor \[B, 3\] or \[B, L, 3\], got \[2, 4\]",
        ),
        (
            ModuleEncoder(nn.LSTM(5, 3, batch_first=True), 3),
            torch.zeros(2, 7, 5),
            r"LSTM should return a tensor .* got tuple",
        ),
        (PatchEncoder((1, 8, 8), 4, 4), torch.zeros(2, 1, 4, 8), r"\[B, 1, 8, 8\]"),
        (SequenceEncoder(3, 4), torch.zeros(2, 5), r"\[B, L, 3\]"),
        (SequenceEncoder(3, 4, vocabulary=9), torch.zeros(2, 5), "integer ids"),
        (SequenceEncoder(3, 4), torch.zeros(2, 0, 3), r"L ≥ 1, got \[2, 0, 3\]"),
        (SequenceEncoder(3, 4, vocabulary=9), torch.zeros(2, 0).int(), "L ≥ 1"),
    ],
)
def test_wrong_shapes_are_named(encoder, x, message):
    with pytest.raises(ValueError, match=message):
        encoder(x)


def test_a_module_that_pools_cannot_leave_padding_out():
    pooling = ModuleEncoder(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), 3)
    with pytest.raises(ValueError, match=r"should return a tensor \[B, L, 3\], got"):
        pooling(torch.zeros(2, 4, 3), torch.tensor([4, 1]))


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="do not tile"):
        PatchEncoder((1, 8, 8), 3, 4)
    with pytest.raises(ValueError, match="multiple of heads"):
        SequenceEncoder(3, 6, heads=4)


def test_one_width_in_place_of_a_list():
    with pytest.raises(TypeError, match=r"list of widths, such as \[64\], got 8"):
        MLPEncoder(4, 3, hidden=8)
