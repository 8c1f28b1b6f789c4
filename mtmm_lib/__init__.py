"""Everything Is a Mapping: multi-task and multi-modal deep learning, one arrow at a
time."""

__version__ = "0.1.0"
