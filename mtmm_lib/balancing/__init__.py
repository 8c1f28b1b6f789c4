"""Balancers: each turns the tasks' losses into one update of the parameters."""

from mtmm_lib.balancing import solvers, weightings
from mtmm_lib.balancing.gradients import GradientBalancer, backward
from mtmm_lib.balancing.losses import LOSS_BALANCERS, Balancer, StaticWeights

__all__ = [
    "LOSS_BALANCERS",
    "Balancer",
    "GradientBalancer",
    "StaticWeights",
    "backward",
    "solvers",
    "weightings",
]
