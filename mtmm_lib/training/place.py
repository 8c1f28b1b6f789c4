"""Where the work is done."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Output
from mtmm_lib.environment import whole_number
from mtmm_lib.tasks import Task
from mtmm_lib.training.seeds import derive_seed

Part = TypeVar("Part", Batch, Tensor)


def _close_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


class Place:
    """Where the work is done: the device, the precision, and which of several processes
    this is, by the environment that `torchrun` sets."""

    def __init__(self, device: torch.device | str, precision: str) -> None:
        if precision not in ("auto", "float32", "bf16"):
            raise ValueError(
                f"precision is 'auto', 'float32' or 'bf16', got {precision!r}"
            )
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        several = whole_number("WORLD_SIZE", 1) > 1
        local = whole_number("LOCAL_RANK", 0)
        try:
            self.device = torch.device(device)
            if several and self.device.type == "cuda":  # each on a host has its own
                self.device = torch.device("cuda", local)
            torch.empty(0, device=self.device)
        # each device has its own kind for what it lacks
        except Exception as error:
            raise ValueError(
                "device is 'auto' or a device of PyTorch that is there, such as 'cpu' "
                f"or 'cuda', got {device!r}: {error}"
            ) from error
        self.rank, self.world = 0, 1
        if several:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            if not dist.is_initialized():
                dist.init_process_group(
                    "nccl" if self.device.type == "cuda" else "gloo"
                )
                # Who opens the group closes it: its threads could abort an interpreter
                # that ends before them.
                atexit.register(_close_group)
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
        cuda = self.device.type == "cuda"
        self.precision = precision
        if precision == "auto":
            self.precision = (
                "bf16" if cuda and torch.cuda.is_bf16_supported() else "float32"
            )

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def seeded(self) -> AbstractContextManager[None]:
        """Within, random numbers may be drawn and seeded; afterwards the state is what
        it was."""
        return torch.random.fork_rng(
            [self.device] if self.device.type == "cuda" else []
        )

    def seed(self, *key: int) -> None:
        # torch.manual_seed would also reseed devices that are not in use, and nothing
        # would restore them.
        torch.default_generator.manual_seed(derive_seed(*key))
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(derive_seed(*key))

    def part(self, whole: Part) -> tuple[Part, bool]:
        """This process's part of a batch or of its indices.

        Where there is none, the first sample stands in, so that every process runs the
        same code, and the second value is false: it must not count.
        """
        if self.world == 1:
            return whole, True
        if self.rank < len(whole):
            return whole[self.rank :: self.world], True
        return whole[:1], False

    def same_everywhere(self, model: nn.Module) -> None:
        """Gives every process the first one's weights."""
        if self.world > 1:
            with torch.no_grad():
                for value in model.state_dict().values():
                    sent = value.contiguous()
                    dist.broadcast(sent, 0)
                    value.copy_(sent)

    def from_first(self, value: Any) -> Any:
        """The first process's value, on all of them."""
        if self.world > 1:
            sent = [value]
            dist.broadcast_object_list(sent, 0, device=self.device)
            value = sent[0]
        return value

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    def whole(
        self,
        losses: Mapping[str, Tensor],
        output: Output,
        batch: Batch,
        own: bool,
        tasks: Mapping[str, Task],
    ) -> tuple[dict[str, Tensor], Output]:
        r"""Losses and penalties with the whole batch's values and this process's share
        of the gradients.

        With labels of weight $n_r$ here and n overall, the mean over all labels is
        $\ell = \sum_r \frac{n_r}{n}\ell_r$, so this process's share is
        $\frac{n_r}{n}\ell_r$. Penalties are shared out by samples.

        Two processes, say, have a batch with three labels of a task: the first one has
        one of them and the loss 5, the second one two and the loss 2. The loss of the
        whole batch is (1 · 5 + 2 · 2) / 3 = 3, and this is what both get to see. The
        first one differentiates 1/3 of its loss, the second one 2/3, and the gradients'
        sum is that of the whole batch's loss.
        """
        # Every process goes through the same terms in the same order, since sums wait
        # for each other: all tasks, whether they have a label here or not, then the
        # penalties. The zero of a task without one requires a gradient, so that
        # backward works where this process has no label at all.
        absent = torch.zeros((), device=self.device, requires_grad=True)
        terms = [losses.get(name, absent) for name in tasks]
        terms += output.penalties.values()
        # n_r for each term: labels for a task, samples for a penalty; none in a process
        # whose only sample stands in for a missing part (`part`).
        weights = [task.weight(batch) for task in tasks.values()]
        weights += [torch.tensor(len(batch), device=self.device)] * len(
            output.penalties
        )
        weight = torch.stack(weights).float() * own
        values = torch.stack([term.detach().float() for term in terms])
        # One exchange for two sums over the processes: Σ n_r ℓ_r, here 9, and Σ n_r =
        # n, here 3.
        total, n = self.sum(torch.stack([values * weight, weight]))
        n_or_one = torch.where(n > 0, n, 1)
        part, mean = weight / n_or_one, total / n_or_one
        # `share` carries the gradient, 1/3 · ℓ_1 with the value 5/3; adding the
        # constant 3 − 5/3 gives it the value of the whole and changes no gradient. Term
        # by term: through one stacked tensor, each loss would give the others'
        # parameters zero gradients.
        shares = [term * part[i] for i, term in enumerate(terms)]
        merged = [share + (mean[i] - share).detach() for i, share in enumerate(shares)]
        found = {name: merged[i] for i, name in enumerate(tasks) if n[i] > 0}
        penalties = dict(zip(output.penalties, merged[len(tasks) :], strict=True))
        return found, replace(output, penalties=penalties)

    def sum_gradients(self, parameters: list[Tensor]) -> None:
        """Adds up the gradients; a parameter that no process has a gradient for keeps
        none."""
        # One exchange for all: the gradients end to end, zero where there is none here,
        # then for each parameter in how many processes there is one.
        reached = [p.grad is not None for p in parameters]
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                for p in parameters
            ]
            + [torch.tensor(reached, device=self.device)]
        )
        *gradients, anywhere = self.sum(flat).split_with_sizes(
            [p.numel() for p in parameters] + [len(parameters)]
        )
        for p, gradient, reaches in zip(
            parameters, gradients, anywhere.tolist(), strict=True
        ):
            p.grad = gradient.view_as(p) if reaches else None
