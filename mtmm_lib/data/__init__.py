"""Data of the book: small sets that travel with it, and generators whose truth is known."""

from mtmm_lib.data.relatedness import RelatedTasks, related_tasks
from mtmm_lib.data.splits import Splits
from mtmm_lib.data.talking_digits import talking_digits
from mtmm_lib.data.tiny_vqa import tiny_vqa

__all__ = ["RelatedTasks", "Splits", "related_tasks", "talking_digits", "tiny_vqa"]
