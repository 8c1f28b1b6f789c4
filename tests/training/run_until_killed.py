"""Trains with a checkpoint, stops in the middle and waits there to be killed."""

import os
import signal
import sys

from training_problem import build, everything, samples

from mtmm_lib.training import fit

file, moment = sys.argv[1:3]


def wait() -> None:
    print("in the middle", flush=True)
    signal.pause()


model = build(dropout=0.3)
if moment == "step":
    passes = 0

    def in_the_third_epoch(module, inputs, output):
        global passes
        passes += module.training
        if passes == 8:
            wait()

    model.register_forward_hook(in_the_third_epoch)
else:
    sync, writes = os.fsync, 0

    def in_the_third_write(descriptor):
        global writes
        writes += 1
        if writes == 3:
            wait()
        sync(descriptor)

    os.fsync = in_the_third_write

fit(
    model,
    samples(),
    valid=samples(seed=1),
    checkpoint=file,
    progress=False,
    device="cpu",
    **everything(),
)
