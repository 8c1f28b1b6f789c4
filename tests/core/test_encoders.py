import pytest
import torch

from mtmm_lib.encoders import (
    ConvEncoder,
    IdentityEncoder,
    MLPEncoder,
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
        (PatchEncoder((1, 8, 8), 4, 4), torch.zeros(2, 1, 4, 8), r"\[B, 1, 8, 8\]"),
        (SequenceEncoder(3, 4), torch.zeros(2, 5), r"\[B, L, 3\]"),
        (SequenceEncoder(3, 4, vocabulary=9), torch.zeros(2, 5), "integer ids"),
    ],
)
def test_wrong_shapes_are_named(encoder, x, message):
    with pytest.raises(ValueError, match=message):
        encoder(x)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="do not tile"):
        PatchEncoder((1, 8, 8), 3, 4)
    with pytest.raises(ValueError, match="multiple of heads"):
        SequenceEncoder(3, 6, heads=4)
