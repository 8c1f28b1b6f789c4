"""A file answers as the model does, for any composition, for batches of any size, and
without the library."""

import json
import logging
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from mtmm_lib import deploy, fusion, sharing
from mtmm_lib.batch import Batch, Features, Output
from mtmm_lib.deploy import export, load
from mtmm_lib.encoders import ConvEncoder, MLPEncoder, PatchEncoder, SequenceEncoder
from mtmm_lib.model import DecisionFusion, Model
from mtmm_lib.tasks import (
    Classification,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SequenceTagging,
)

# PyTorch's trace of its own tracing is made for nobody, unless somebody listens, as
# pytest does.
logging.getLogger("torch.__trace").propagate = False

both_kinds = pytest.mark.parametrize("kind", ["onnx", "pt2"])
TASKS = [Classification("digit", 5), Regression("ink", 2)]


def samples(size=6, seed=0, absent=False, lengths=False):
    g = torch.Generator().manual_seed(seed)
    inputs = {
        "image": torch.randn(size, 1, 8, 8, generator=g),
        "audio": torch.randn(size, 7, 3, generator=g),
        "text": torch.randint(0, 9, (size, 4), generator=g),
    }
    present = {"audio": torch.arange(size) % 2 == 0} if absent else {}
    count = {"text": torch.randint(1, 5, (size,), generator=g)} if lengths else {}
    targets = {
        "digit": torch.randint(0, 5, (size,), generator=g),
        "ink": torch.randn(size, 2, generator=g),
    }
    return Batch(inputs, targets, present, count)


def encoder(modality, tokens=False):
    if modality == "text":
        return SequenceEncoder(6, 8, vocabulary=9)
    if modality == "audio":
        return SequenceEncoder(3, 8) if tokens else MLPEncoder(21, 8, dropout=0.5)
    return PatchEncoder((1, 8, 8), 4, 8) if tokens else ConvEncoder(1, 8)


def build(
    fusing=fusion.GatedFusion,
    sharing_=sharing.HardSharing,
    modalities=("image", "audio"),
    tokens=False,
):
    torch.manual_seed(0)
    encoders = {m: encoder(m, tokens) for m in modalities}
    tasks = [task.name for task in TASKS]
    return Model(
        encoders, fusing(dict.fromkeys(modalities, 8), 8), sharing_(tasks, 8, 8), TASKS
    )


def agree(file, model, batch):
    expected, got = model.eval()(batch).predictions, load(file)(batch)
    assert list(got) == list(expected)
    for task, value in expected.items():
        torch.testing.assert_close(got[task], value.detach(), rtol=1e-4, atol=1e-5)


@both_kinds
def test_the_file_gives_the_models_predictions_for_batches_of_any_size(kind, tmp_path):
    model = build(modalities=("image", "audio", "text"))
    file = export(
        model, samples(4, absent=True, lengths=True), tmp_path / f"model.{kind}"
    )
    for size in (1, 2, 4, 33):
        agree(file, model, samples(size, seed=size, absent=True, lengths=True))


class Side(nn.Module):
    """Models side by side, each under its name: what one export proves for all of
    them."""

    def __init__(self, models):
        super().__init__()
        self.models, self.tasks = nn.ModuleDict(models), dict.fromkeys(models)

    def forward(self, batch):
        return Output(
            {
                name: model(batch).predictions["digit"]
                for name, model in self.models.items()
            }
        )


def test_fusions_of_vectors_and_of_tokens_can_be_exported(tmp_path):
    """Two modalities, of which one may be absent."""
    names = ("ConcatFusion", "SumFusion", "FiLMFusion", "CrossModalFusion")
    model = Side({name: build(fusion.ALL[name], tokens=True) for name in names})
    agree(
        export(model, samples(absent=True), tmp_path / "model.pt2"),
        model,
        samples(9, 1, absent=True),
    )


@both_kinds
def test_the_heads_of_all_kinds_of_tasks_can_be_exported(kind, tmp_path):
    tasks = [
        Ordinal("grade", 4, hidden=(5,)),
        MultiLabel("signs", 3),
        SequenceTagging("tag", 3, reads="text"),
        Segmentation("mask", 2, size=(8, 8), grid=(2, 2), reads="image"),
    ]
    model = Model(
        {m: encoder(m, tokens=True) for m in ("image", "text")},
        fusion.ConcatFusion({"image": 8, "text": 8}, 8),
        sharing.HardSharing(["grade", "signs"], 8, 8),
        tasks,
    )
    file = export(model, samples(lengths=True), tmp_path / f"model.{kind}")
    agree(file, model, samples(3, 1, lengths=True))


def test_every_sharing_can_be_exported(tmp_path):
    model = Side({name: build(sharing_=made) for name, made in sharing.ALL.items()})
    agree(export(model, samples(), tmp_path / "model.pt2"), model, samples(9, 1))


def test_every_decision_fusion_can_be_exported(tmp_path):
    alone = {m: build(fusion.ConcatFusion, modalities=(m,)) for m in ("image", "audio")}
    model = Side(
        {how: DecisionFusion(alone, how) for how in ("mean", "product", "learned")}
    )
    agree(
        export(model, samples(absent=True), tmp_path / "model.pt2"),
        model,
        samples(9, 1, absent=True),
    )


@both_kinds
def test_the_file_reads_what_the_model_uses_and_nothing_else(kind, tmp_path):
    model = build()  # it reads no text; the encoder of audio looks at no lengths
    example = samples(absent=True, lengths=True)
    example.lengths["audio"] = torch.full((6,), 7)
    predictor = load(export(model, example, tmp_path / f"model.{kind}"))
    assert predictor.inputs == ("image", "audio", "audio_present")
    assert predictor.outputs == ("digit", "ink")
    batch = samples(3, 1)  # where nothing is said about presence, all is there
    expected = model.eval()(batch).predictions["digit"]
    torch.testing.assert_close(
        predictor(batch)["digit"], expected.detach(), rtol=1e-4, atol=1e-5
    )


@both_kinds
def test_what_an_absent_input_holds_makes_no_difference(kind, tmp_path):
    predictor = load(export(build(), samples(absent=True), tmp_path / f"model.{kind}"))
    batch = samples(4, 1).without("audio")
    spoiled = samples(4, 1).without("audio")
    spoiled.inputs["audio"].fill_(torch.nan)
    assert predictor(batch)["digit"].equal(predictor(spoiled)["digit"])


@both_kinds
def test_a_batch_that_does_not_fit_is_refused(kind, tmp_path):
    predictor = load(export(build(), samples(), tmp_path / f"model.{kind}"))
    with pytest.raises(
        KeyError,
        match=r"the file reads \['image', 'audio'\], and the batch has no \['audio'\]",
    ):
        predictor(Batch({"image": torch.zeros(2, 1, 8, 8)}))
    with pytest.raises(
        ValueError, match=r"'audio' is absent .* an example that has present\['audio'\]"
    ):
        predictor(samples(absent=True))


def test_the_model_stays_as_it_was(tmp_path):
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(model, samples(), tmp_path / "model.pt2")
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_slice_does_not_bring_its_whole_along(tmp_path):
    many = samples(20_000)
    file = export(build(), many[:2], tmp_path / "model.pt2")
    assert file.stat().st_size < many.inputs["image"].numel() * 4 / 4


def test_onnx_runtime_alone_answers(tmp_path):
    """Neither PyTorch nor this library is needed: names and shapes are all that one has
    to know."""
    model, batch = build().eval(), samples(3, 1)
    file = export(model, samples(), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"], "one file"
    np.savez(
        tmp_path / "batch.npz", image=batch.inputs["image"], audio=batch.inputs["audio"]
    )
    code = """
import json, sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
given = dict(numpy.load(sys.argv[2]))
answers = session.run([output.name for output in session.get_outputs()], given)
assert not {"torch", "mtmm_lib"} & set(sys.modules)
print(json.dumps([answer.tolist() for answer in answers]))
"""
    command = [sys.executable, "-c", code, str(file), str(tmp_path / "batch.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = [output.name for output in onnxruntime.InferenceSession(file).get_outputs()]
    for name, answer in zip(names, json.loads(done.stdout), strict=True):
        expected = model(batch).predictions[name].detach()
        torch.testing.assert_close(torch.tensor(answer), expected, rtol=1e-4, atol=1e-5)


class Positions(nn.Module):
    """Learned positions, one for each of twelve tokens."""

    dim = 8

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(12, 8))

    def forward(self, x, lengths=None):
        return Features(x + self.position)


def sequences(size, text, sound, seed=0, lengths=True):
    g = torch.Generator().manual_seed(seed)
    count = torch.randint(1, text + 1, (size,), generator=g)
    return Batch(
        {
            "text": torch.randint(0, 9, (size, text), generator=g),
            "sound": torch.randn(size, sound, 3, generator=g),
            "table": torch.randn(size, 5, 2, generator=g),
            "steps": torch.randn(size, 12, 8, generator=g),
        },
        lengths={"text": count} if lengths else {},
    )


@both_kinds
@pytest.mark.parametrize("lengths", [True, False])
def test_sequences_have_any_length_unless_the_model_reads_exactly_one(
    kind, lengths, tmp_path
):
    torch.manual_seed(0)
    encoders = {
        "text": SequenceEncoder(6, 8, vocabulary=9),
        "sound": SequenceEncoder(3, 8, layers=0),
        "table": MLPEncoder(10, 8),
        "steps": Positions(),
    }
    fused = fusion.ConcatFusion(dict.fromkeys(encoders, 8), 8)
    shared = sharing.HardSharing(["digit", "ink"], 8, 8)
    model = Model(encoders, fused, shared, TASKS)
    # The same length, which does not mean that the lengths belong together.
    example = sequences(4, 6, 6, lengths=lengths)
    file = export(model, example, tmp_path / f"model.{kind}")
    for text, sound in ((6, 6), (1, 1), (2, 17), (40, 3)):
        agree(file, model, sequences(3, text, sound, text, lengths))
    for name in ("table", "steps"):
        other = sequences(3, 6, 6, lengths=lengths)
        other.inputs[name] = torch.cat([other.inputs[name]] * 2, 1)
        with pytest.raises(Exception, match=name):
            load(file)(other)
    if kind == "onnx":
        read = onnxruntime.InferenceSession(file).get_inputs()
        fixed = {x.name: [isinstance(size, int) for size in x.shape] for x in read}
        assert fixed["text"] == [False, False]
        assert fixed["sound"] == [False, False, True]
        assert fixed["table"] == fixed["steps"] == [False, True, True]


def vectors(*names, size=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, 3, generator=g) for name in names}


def of_vectors(names, tasks):
    torch.manual_seed(0)
    encoders = {name: MLPEncoder(3, 4, hidden=()) for name in names}
    fused = fusion.GatedFusion(dict.fromkeys(names, 4), 4)
    shared = sharing.HardSharing(tasks, 4, 4)
    return Model(encoders, fused, shared, [Regression(task) for task in tasks])


@both_kinds
def test_any_name_that_means_one_thing_can_be_exported(kind, tmp_path):
    """Endings of the file's own names, and names of operations between inputs and
    outputs."""
    names = ("petal_length", "is_present", "my linear")
    model = of_vectors(names, ["relu", "val_0", "größe"])
    there = torch.tensor([True, False, True, True])
    example = Batch(vectors(*names), present={"petal_length": there})
    file = export(model, example, tmp_path / f"model.{kind}")
    assert load(file).inputs == (*names, "petal_length_present")
    agree(file, model, Batch(vectors(*names, seed=1), present={"petal_length": ~there}))
    agree(file, model, Batch(vectors(*names, seed=2, size=2)))
    with pytest.raises(KeyError, match="the batch has no .'is_present'"):
        load(file)(Batch(vectors("petal_length", "is", "my linear")))


@both_kinds
def test_a_name_for_two_things_is_refused_and_a_good_file_stays(kind, tmp_path):
    there = torch.tensor([True, False, True, True])
    model = of_vectors(("has", "has_present"), ["size"])
    file = export(
        model, Batch(vectors("has", "has_present")), tmp_path / f"model.{kind}"
    )
    good = file.read_bytes()
    both = Batch(vectors("has", "has_present"), present={"has": there})
    with pytest.raises(
        ValueError, match="'has_present' would be two things .* of 'has'"
    ):
        export(model, both, file)
    # A task of such a name, which `.pt2` can tell from the input and `.onnx` cannot.
    model = of_vectors(("audio", "image"), ["size", "image_present"])
    example = Batch(vectors("audio", "image"), present={"image": there})
    if kind == "onnx":
        with pytest.raises(ValueError, match=r"the names \['image_present'\].*to .pt2"):
            export(model, example, file)
    else:
        other = export(model, example, tmp_path / "other.pt2")
        agree(other, model, example)
        other.unlink()
    assert file.read_bytes() == good and list(tmp_path.iterdir()) == [file]


@both_kinds
def test_what_fails_leaves_a_good_file_and_nothing_beside_it(
    kind, tmp_path, monkeypatch
):
    model, example = of_vectors(("image",), ["size"]), Batch(vectors("image"))
    file = export(model, example, tmp_path / f"model.{kind}")
    good = file.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    def stopped(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr("os.fsync", full)
        export(model, example, file)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(deploy, "load", stopped)
        export(model, example, file)
    with pytest.raises(FileNotFoundError):
        export(model, example, tmp_path / "nowhere" / file.name)
    assert file.read_bytes() == good and list(tmp_path.iterdir()) == [file]


def test_words_of_python_are_refused(tmp_path):
    """PyTorch writes code with these names, in which they would be something else."""
    for modality, task in (("is", "size"), ("image", "class")):
        model = of_vectors((modality,), [task])
        with pytest.raises(
            ValueError, match=f"'{modality if task == 'size' else task}'"
        ):
            export(model, Batch(vectors(modality)), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_making_is_refused(tmp_path):
    program = torch.export.export(nn.Linear(3, 2), (torch.zeros(4, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(ValueError, match="was not written by mtmm_lib.deploy.export"):
        load(tmp_path / "model.pt2")


def test_a_file_that_answers_otherwise_is_not_passed_over(tmp_path, monkeypatch):
    """A model whose evaluation is random cannot be what the file is, and takes no good
    file's place."""

    class Restless(ConvEncoder):
        def forward(self, x, lengths=None):
            return super().forward(x + torch.rand_like(x))

    model = build()
    model.encoders["image"] = Restless(1, 8)
    with pytest.raises(
        RuntimeError,
        match="answers otherwise than the model: task 'digit' differs by up to",
    ):
        export(model, samples(), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_and_single_samples_are_refused(tmp_path):
    with pytest.raises(ValueError, match="end in .onnx or .pt2, got 'model.bin'"):
        export(build(), samples(), tmp_path / "model.bin")
    with pytest.raises(ValueError, match="end in .onnx or .pt2, got 'model.bin'"):
        load(tmp_path / "model.bin")
    with pytest.raises(ValueError, match="two samples or more"):
        export(build(), samples(1), tmp_path / "model.onnx")


def test_arguments_in_another_order_are_refused(tmp_path):
    model, path = build(), tmp_path / "model.onnx"
    for given, named in (
        ((model, path, samples()), "example is a PosixPath|example is a WindowsPath"),
        ((samples(), model, path), "model is a Batch"),
        ((model, samples(), None), "path is a NoneType"),
    ):
        with pytest.raises(TypeError, match=named):
            export(*given)


def test_exporting_is_silent(tmp_path, capfd):
    export(build(), samples(), tmp_path / "model.onnx")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
