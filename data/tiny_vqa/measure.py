"""How well small models answer Tiny VQA, from one modality and from both: prints a
table of CARD.md.

    python data/tiny_vqa/measure.py            # about two minutes on one thread

Three seeds, each with other scenes in the test set. Nothing is tuned.
"""

from __future__ import annotations

import numpy as np
import torch

from mtmm_lib.data import tiny_vqa
from mtmm_lib.data.tiny_vqa import ANSWERS, KINDS, VOCABULARY
from mtmm_lib.encoders import MLPEncoder, SequenceEncoder
from mtmm_lib.fusion import ConcatFusion
from mtmm_lib.model import Model
from mtmm_lib.sharing import HardSharing
from mtmm_lib.tasks import Classification, Regression
from mtmm_lib.training import fit

SEEDS = range(3)
MODELS = {
    "question alone": (("question",), False),
    "image alone": (("image",), False),
    "both": (("image", "question"), False),
    "both, with sub-tasks": (("image", "question"), True),
}


def build(modalities: tuple[str, ...], sub_tasks: bool, dim: int = 96) -> Model:
    encoders = {
        "image": MLPEncoder(768, dim, hidden=(192,)),
        "question": SequenceEncoder(32, dim, len(VOCABULARY), layers=0),
    }
    tasks = [Classification("answer", classes=len(ANSWERS))]
    if sub_tasks:
        tasks += [
            Regression("objects", dim=9, reads="image"),
            Regression("layout", dim=24, reads="image"),
        ]
    return Model(
        {name: encoders[name] for name in modalities},
        ConcatFusion(dict.fromkeys(modalities, dim), dim),
        HardSharing(["answer"], dim, 128),
        tasks,
    )


def main() -> None:
    print(f"| model | all | {' | '.join(KINDS)} |\n|{'---|' * (len(KINDS) + 2)}")
    for name, (modalities, sub_tasks) in MODELS.items():
        rows = []
        for seed in SEEDS:
            data = tiny_vqa(seed=seed)
            torch.manual_seed(seed)
            model = build(modalities, sub_tasks)
            fit(
                model,
                data.train,
                valid=data.valid,
                epochs=30,
                lr=2e-3,
                seed=seed,
                progress=False,
            )
            with torch.no_grad():
                answers = model(data.test).predictions["answer"].argmax(1)
            right = (answers == data.test.targets["answer"]).float()
            kinds = [
                right[data.test.targets["kind"] == k].mean() for k in range(len(KINDS))
            ]
            rows.append([float(right.mean()), *map(float, kinds)])
        mean = 100 * np.mean(rows, 0)
        spread = 100 * np.std([row[0] for row in rows], ddof=1)
        print(
            f"| {name} | {mean[0]:.1f} ± {spread:.1f} | "
            f"{' | '.join(f'{m:.1f}' for m in mean[1:])} |"
        )


if __name__ == "__main__":
    main()
