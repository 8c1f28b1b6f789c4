"""Balancers: each turns the tasks' losses into one update of the parameters."""

from mtmm_lib.balancing import solvers, weightings
from mtmm_lib.balancing.gradients import GradientBalancer, backward
from mtmm_lib.balancing.losses import (
    FAMO,
    LOSS_BALANCERS,
    Balancer,
    DynamicWeightAverage,
    GeometricMean,
    GradNorm,
    LossBalancer,
    RandomWeights,
    SmoothTchebycheff,
    StaticWeights,
    UncertaintyWeights,
)

__all__ = [
    "FAMO",
    "LOSS_BALANCERS",
    "Balancer",
    "DynamicWeightAverage",
    "GeometricMean",
    "GradNorm",
    "GradientBalancer",
    "LossBalancer",
    "RandomWeights",
    "SmoothTchebycheff",
    "StaticWeights",
    "UncertaintyWeights",
    "backward",
    "solvers",
    "weightings",
]
