"""Data of the book: small sets that travel with it, generators whose truth is known,
and real public sets."""

from mtmm_lib.data.correlated_tasks import CorrelatedTasks, correlated_tasks
from mtmm_lib.data.fsdd import fsdd
from mtmm_lib.data.information_gate import InformationGate, information_gate
from mtmm_lib.data.lagged_copy import lagged_copy
from mtmm_lib.data.mfeat import mfeat
from mtmm_lib.data.related_tasks import RelatedTasks, related_tasks
from mtmm_lib.data.scikit_learn_digits import scikit_learn_digits
from mtmm_lib.data.snips import snips
from mtmm_lib.data.splits import Splits
from mtmm_lib.data.talking_digits import talking_digits
from mtmm_lib.data.tiny_vqa import tiny_vqa
from mtmm_lib.data.ud_english_ewt import ud_english_ewt
from mtmm_lib.data.unlike_units import unlike_units

__all__ = [
    "CorrelatedTasks",
    "InformationGate",
    "RelatedTasks",
    "Splits",
    "correlated_tasks",
    "fsdd",
    "information_gate",
    "lagged_copy",
    "mfeat",
    "related_tasks",
    "scikit_learn_digits",
    "snips",
    "talking_digits",
    "tiny_vqa",
    "ud_english_ewt",
    "unlike_units",
]
