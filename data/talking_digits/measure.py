"""How well simple models do on Talking Digits: prints the tables of CARD.md.

    python data/talking_digits/measure.py            # about four minutes on one thread

Five seeds, each with other images and speakers in the test set. Nothing is tuned.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mtmm_lib.data import talking_digits
from mtmm_lib.data.talking_digits import TASKS, VOCABULARY

SEEDS = range(5)
MODALITIES = ("image", "audio", "text")


def mlp() -> MLPClassifier:
    return MLPClassifier((128, 64), alpha=0.1, max_iter=40, random_state=0)


def score(data, inputs: tuple[str, ...], task: str) -> float:
    """Test accuracy (R² for ink) of one model for one task."""

    def rows(batch):
        features = np.concatenate(
            [batch.inputs[name].flatten(1).numpy() for name in inputs], 1
        )
        target = batch.targets[task].numpy()
        return features[target != -1], target[target != -1]

    if task == "ink":
        model = RidgeCV(alphas=10.0 ** np.arange(-1, 6))
    elif inputs == ("text",):
        words = OneHotEncoder(categories=[np.arange(len(VOCABULARY))] * 4)
        model = make_pipeline(words, LogisticRegression(max_iter=1000))
    else:
        model = mlp()
    return model.fit(*rows(data.train)).score(*rows(data.test))


def cell(values: list[float]) -> str:
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)

    print("| task | chance | image | audio | text |\n|---|---|---|---|---|")
    clean = [talking_digits(modalities=MODALITIES, seed=seed) for seed in SEEDS]
    for task in TASKS:
        chance = "0.0"
        if task != "ink":
            # The share, in the test set, of the class that is the most frequent one in
            # training.
            usual = [
                (d.train.targets[task].clamp(min=0).bincount().argmax(), d.test)
                for d in clean
            ]
            chance = cell(
                [float((t.targets[task] == c).float().mean()) for c, t in usual]
            )
        scores = [cell([score(data, (m,), task) for data in clean]) for m in MODALITIES]
        print(f"| {task} | {chance} | {' | '.join(scores)} |", flush=True)

    print(
        "\n| image noise | digit from image | | audio noise | digit from audio "
        "|\n|---|---|---|---|---|"
    )
    for image_noise, audio_noise in [(0, 0), (0.3, 1), (0.6, 2), (1.0, 3)]:
        noisy = [
            talking_digits(image_noise=image_noise, audio_noise=audio_noise, seed=s)
            for s in SEEDS
        ]
        seen, heard = (
            cell([score(data, (m,), "digit") for data in noisy])
            for m in ("image", "audio")
        )
        print(f"| {image_noise} | {seen} | | {audio_noise} | {heard} |", flush=True)

    # The word is known to those who see the image: a model of its own for every digit.
    told = []
    for data in clean:
        right = 0
        for digit in range(10):
            train, test = (
                b[(b.targets["digit"] == digit) & (b.targets["accent"] >= 0)]
                for b in data[::2]
            )
            if len(test):
                model = LogisticRegression(C=0.01, max_iter=300)
                model.fit(train.inputs["audio"].flatten(1), train.targets["accent"])
                right += (
                    model.predict(test.inputs["audio"].flatten(1))
                    == test.targets["accent"].numpy()
                ).sum()
        told.append(right / int((data.test.targets["accent"] >= 0).sum()))
    print(f"\naccent, with one linear model for each digit: {cell(told)}")


if __name__ == "__main__":
    main()
