"""Balancers: each turns the tasks' losses into one update of the parameters."""

from mtmm_lib.balancing import solvers, weightings
from mtmm_lib.balancing.base import Balancer, LossBalancer, StaticWeights
from mtmm_lib.balancing.gradients import GradientBalancer, GradNorm, backward
from mtmm_lib.balancing.losses import (
    FAMO,
    DynamicWeightAverage,
    GeometricMean,
    RandomWeights,
    SmoothTchebycheff,
    UncertaintyWeights,
)
from mtmm_lib.balancing.modalities import (
    OGMGE,
    additive_parts,
    gradient_blend_weights,
    unimodal_phase_ratio,
)
from mtmm_lib.balancing.toys import Toy, descend, fonseca_fleming, valleys

__all__ = [
    "FAMO",
    "LOSS_BALANCERS",
    "OGMGE",
    "Balancer",
    "DynamicWeightAverage",
    "GeometricMean",
    "GradNorm",
    "GradientBalancer",
    "LossBalancer",
    "RandomWeights",
    "SmoothTchebycheff",
    "StaticWeights",
    "Toy",
    "UncertaintyWeights",
    "additive_parts",
    "backward",
    "descend",
    "fonseca_fleming",
    "gradient_blend_weights",
    "solvers",
    "unimodal_phase_ratio",
    "valleys",
    "weightings",
]

LOSS_BALANCERS: dict[str, type[Balancer]] = {
    cls.__name__: cls
    for cls in (
        StaticWeights,
        UncertaintyWeights,
        RandomWeights,
        DynamicWeightAverage,
        GeometricMean,
        SmoothTchebycheff,
        FAMO,
        GradNorm,
    )
}
