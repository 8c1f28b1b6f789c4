"""Training and evaluation: one loop for every model, task and balancer."""

from mtmm_lib.training.evaluation import evaluate
from mtmm_lib.training.fit import fit
from mtmm_lib.training.history import History, TrainingError
from mtmm_lib.training.many import fit_many
from mtmm_lib.training.selection import mean_loss

__all__ = ["History", "TrainingError", "evaluate", "fit", "fit_many", "mean_loss"]
