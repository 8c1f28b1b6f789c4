"""Tasks that give an answer for each token or each pixel."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score
from torch import nn
from torch.utils.data import DataLoader

from mtmm_lib.batch import Batch, Output, collate
from mtmm_lib.encoders import PatchEncoder, SequenceEncoder
from mtmm_lib.fusion import IdentityFusion, SumFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import (
    Classification,
    Ordinal,
    Segmentation,
    SequenceTagging,
    unimodal_tasks,
)
from mtmm_lib.training import evaluate, fit, fit_many, predict


def tagger(*tasks) -> Model:
    shared = [task.name for task in tasks if task.reads == ("shared",)]
    return Model(
        {"text": SequenceEncoder(8, 16, vocabulary=5, heads=2)},
        IdentityFusion({"text": 16}, 16),
        HardSharing(shared, 16, 16),
        tasks,
    )


def sentences(size: int) -> list:
    """Each word has a tag by what it is; that of the first is missing."""
    found = []
    for _ in range(size):
        words = torch.randint(0, 5, (int(torch.randint(2, 7, ())),))
        tags = torch.cat([torch.tensor([-1]), (words[1:] < 2).long()])
        found.append(({"text": words}, {"tag": tags, "first": words[0]}))
    return found


def test_the_loss_is_the_mean_over_all_labelled_tokens():
    task = SequenceTagging("tag", 3, class_weights=[1, 2, 3], label_smoothing=0.1)
    logits = torch.randn(4, 6, 3, dtype=torch.float64)
    target = torch.randint(-1, 3, (4, 5))
    target[2] = -1
    batch = Batch({"text": torch.zeros(4, 6)}, {"tag": target})
    output = Output({"tag": logits})
    kept = target >= 0
    weights = torch.tensor([1.0, 2, 3]).double()
    expected = F.cross_entropy(
        logits[:, :5][kept], target[kept], weights, label_smoothing=0.1
    )
    torch.testing.assert_close(task.loss(output, batch), expected)
    torch.testing.assert_close(task.weight(batch).double(), weights[target[kept]].sum())
    assert task.labelled(batch).tolist() == [True, True, False, True]
    right = (logits[:, :5].argmax(2) == target)[kept].double().mean()
    assert task.metric(output, batch).item() == pytest.approx(right.item())
    with pytest.raises(ValueError, match="has 5 targets in a row, but reads 4 tokens"):
        task.loss(Output({"tag": logits[:, :4]}), batch)


def test_sentences_of_all_lengths_are_tagged():
    torch.manual_seed(0)
    data = sentences(100)
    task, first = SequenceTagging("tag", 2), Classification("first", 5)
    model = tagger(task, first, *unimodal_tasks(task, ["text"]))
    loader = DataLoader(data, batch_size=20, collate_fn=collate)
    fit(model, loader, epochs=40, lr=0.01, device="cpu", progress=False)
    scores = evaluate(model, loader)
    assert min(scores.values()) > 0.9 and set(scores) == {"tag", "first", "tag/text"}
    whole = Batch.cat(loader)
    assert whole.targets["tag"].shape == (100, 6)
    assert evaluate(model, whole) == pytest.approx(scores)
    said = predict(model, loader)["tag"]
    assert said.shape == (100, 6, 2)
    alone = predict(model, collate(data[7:8]))["tag"]
    torch.testing.assert_close(said[7:8, : alone.shape[1]], alone)


def test_padding_never_reaches_a_gradient():
    data = sentences(6)
    model, batch = tagger(SequenceTagging("tag", 2)), collate(data)
    gradients = []
    for filler in (0, 4):
        words = batch.inputs["text"].clone()
        for row, n in zip(words, batch.lengths["text"], strict=True):
            row[n:] = filler
        changed = Batch({"text": words}, batch.targets, {}, batch.lengths)
        model.zero_grad()
        model.losses(model(changed), changed)["tag"].backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b) and a.isfinite().all()


def test_targets_of_a_tagger_are_checked():
    task, text = SequenceTagging("tag", 2), {"text": torch.zeros(2, 3).long()}
    with pytest.raises(ValueError, match=r"sample 5, entry \[1\], is 7"):
        task.check(Batch(text, {"tag": torch.tensor([[0, 7], [1, 1]])}), first=5)
    with pytest.raises(ValueError, match=r"shape \[B, L\], got \[2\]"):
        task.check(Batch(text, {"tag": torch.tensor([0, 1])}))
    with pytest.raises(ValueError, match="dense and needs tokens"):
        Model(
            {"text": SequenceEncoder(8, 16, vocabulary=5)},
            SumFusion({"text": 16}, 16),
            HardSharing(["tag"], 16, 16),
            [task],
        )


# Pictures


def test_each_token_is_laid_out_as_a_patch():
    task = Segmentation("mask", 3, size=(4, 6), grid=(2, 3))
    head = task.head({"shared": 1})
    with torch.no_grad():
        head.each.weight.fill_(100)
        head.each.bias.copy_(torch.arange(12))  # 2 × 2 pixels of 3 classes
    y = head(torch.arange(6.0).reshape(1, 6, 1))
    assert y.shape == (1, 4, 6, 3)
    for row in range(4):
        for column in range(6):
            token, pixel = row // 2 * 3 + column // 2, row % 2 * 2 + column % 2
            expected = [100 * token + 3 * pixel + c for c in range(3)]
            assert y[0, row, column].tolist() == expected
    with pytest.raises(ValueError, match="needs 6 tokens, got 5"):
        head(torch.zeros(1, 5, 1))


def test_pictures_are_segmented_by_their_brightness():
    torch.manual_seed(0)
    x = torch.rand(200, 1, 8, 8)
    target = (x[:, 0] > 0.5).long()
    target[:, 0] = -1
    task = Segmentation("mask", 2, size=(8, 8), grid=(4, 4), hidden=(32,))
    model = Model(
        {"picture": PatchEncoder((1, 8, 8), 2, 32, layers=0)},
        IdentityFusion({"picture": 32}, 32),
        HardSharing(["mask"], 32, 32, trunk=lambda a, b: nn.Sequential(nn.Identity())),
        [task],
    )
    batch = Batch({"picture": x}, {"mask": target})
    assert evaluate(model, batch)["mask"] < 0.6
    fit(model, batch, epochs=40, lr=0.01, device="cpu", progress=False)
    p = predict(model, batch)["mask"]
    torch.testing.assert_close(p.sum(3), torch.ones(200, 8, 8))
    kept = target >= 0
    expected = jaccard_score(target[kept], p.argmax(3)[kept], average="macro")
    assert evaluate(model, batch)["mask"] == pytest.approx(expected) and expected > 0.9
    task.check(batch)
    with pytest.raises(ValueError, match=r"\[B, 8, 8\], got \[200, 7, 8\]"):
        task.check(Batch({"picture": x}, {"mask": target[:, 1:]}))
    with pytest.raises(ValueError, match="3 × 4 tokens does not divide 8 × 8"):
        Segmentation("mask", 2, (8, 8), (3, 4))


def test_batches_of_sequences_are_padded_when_they_are_joined():
    short, long = collate(sentences(3)), collate(sentences(4))
    one = ({"text": torch.ones(9).long()}, {"tag": torch.ones(9).long(), "first": 1})
    single = collate([one])
    whole = Batch.cat([short, long, single])
    assert whole.inputs["text"].shape == whole.targets["tag"].shape == (8, 9)
    assert whole.lengths["text"][-1] == 9
    assert whole.targets["tag"][0, short.lengths["text"][0] :].eq(-1).all()
    shapes = partial(torch.zeros, 2)
    with pytest.raises(ValueError, match=r"\[2, 1, 4, 4\], \[2, 3, 4, 4\]"):
        Batch.cat([Batch({"a": shapes(1, 4, 4)}), Batch({"a": shapes(3, 4, 4)})])


def test_dense_models_of_several_seeds_are_each_what_fit_makes():
    batch = collate(sentences(24))
    tasks = [SequenceTagging("tag", 2, class_weights=[1, 2]), Ordinal("first", 5)]
    settings = dict(epochs=2, batch_size=8, lr=0.01)
    many = fit_many(partial(tagger, *tasks), [batch] * 2, seeds=[3, 4], **settings)
    torch.manual_seed(4)
    alone = tagger(*tasks)
    fit(alone, batch, seed=4, device="cpu", progress=False, **settings)
    for name, value in predict(many[1], batch).items():
        torch.testing.assert_close(
            value, predict(alone, batch)[name], rtol=1e-3, atol=1e-4
        )
