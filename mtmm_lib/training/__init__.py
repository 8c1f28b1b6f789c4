"""Training and evaluation: one loop for every model, task and balancer."""

from mtmm_lib.training.evaluation import evaluate, evaluate_losses, predict
from mtmm_lib.training.fit import fit
from mtmm_lib.training.history import History, TrainingError
from mtmm_lib.training.hooks import EpochState, patience
from mtmm_lib.training.many import fit_many
from mtmm_lib.training.schedules import cosine
from mtmm_lib.training.selection import mean_loss

__all__ = [
    "EpochState",
    "History",
    "TrainingError",
    "cosine",
    "evaluate",
    "evaluate_losses",
    "fit",
    "fit_many",
    "mean_loss",
    "patience",
    "predict",
]
