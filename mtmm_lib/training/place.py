"""Where the work is done."""

from __future__ import annotations

import atexit
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mtmm_lib.batch import Batch, Output
from mtmm_lib.environment import whole_number
from mtmm_lib.training.seeds import derive_seed


def _close_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Place:
    """Where the work is done: the device, the precision, and which of several processes
    this is."""

    def __init__(self, device: torch.device | str, precision: str) -> None:
        if precision not in ("auto", "float32", "bf16"):
            raise ValueError(
                f"precision is 'auto', 'float32' or 'bf16', got {precision!r}"
            )
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.rank, self.world = 0, 1
        if whole_number("WORLD_SIZE", 1) > 1:
            from accelerate import PartialState

            if not torch.distributed.is_initialized():
                # Who opens the group closes it: its threads could abort an interpreter
                # that ends before them.
                atexit.register(_close_group)
            state = PartialState(cpu=self.device.type == "cpu")
            self.rank, self.world, self.device = (
                state.process_index,
                state.num_processes,
                state.device,
            )
        cuda = self.device.type == "cuda"
        self.precision = precision
        if precision == "auto":
            self.precision = (
                "bf16" if cuda and torch.cuda.is_bf16_supported() else "float32"
            )

    def autocast(self):  # noqa: ANN201
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def seeded(self):  # noqa: ANN201
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

    def part(self, whole: Batch | Tensor) -> tuple[Batch | Tensor, bool]:
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
            from accelerate.utils import broadcast

            with torch.no_grad():
                for value in model.state_dict().values():
                    value.copy_(broadcast(value))

    def from_first(self, value: Any) -> Any:
        """The first process's value, on all of them."""
        if self.world > 1:
            from accelerate.utils import broadcast_object_list

            value = broadcast_object_list([value])[0]
        return value

    def sum(self, value: Tensor) -> Tensor:
        from accelerate.utils import reduce

        return reduce(value, "sum")

    def whole(
        self,
        losses: dict[str, Tensor],
        output: Output,
        batch: Batch,
        own: bool,
        tasks: dict[str, Any],
    ) -> tuple[dict[str, Tensor], Output]:
        r"""Losses and penalties with the whole batch's values and this process's share
        of the gradients.

        With labels of weight $n_r$ here and n overall, the mean over all labels is
        $\ell = \sum_r \frac{n_r}{n}\ell_r$, so this process's share is
        $\frac{n_r}{n}\ell_r$. Penalties are shared out by samples.
        """
        # Requires a gradient, so that backward works where this process has no label at
        # all.
        absent = torch.zeros((), device=self.device, requires_grad=True)
        terms = [losses.get(name, absent) for name in tasks] + list(
            output.penalties.values()
        )
        counts = [task.weight(batch) for task in tasks.values()]
        counts += [torch.tensor(len(batch), device=self.device)] * len(output.penalties)
        count, values = (
            torch.stack(counts).float() * own,
            torch.stack([term.detach() for term in terms]),
        )
        total, labels = self.sum(torch.stack([values.float() * count, count]))
        safe = torch.where(labels > 0, labels, 1)
        part, mean = count / safe, total / safe
        # One by one: through one stacked tensor, each loss would give the others'
        # parameters zero gradients.
        shares = [term * part[i] for i, term in enumerate(terms)]
        merged = [share + (mean[i] - share).detach() for i, share in enumerate(shares)]
        found = {name: merged[i] for i, name in enumerate(tasks) if labels[i] > 0}
        penalties = dict(zip(output.penalties, merged[len(tasks) :], strict=True))
        return found, replace(output, penalties=penalties)

    def sum_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Adds up the gradients; a parameter that no process has a gradient for keeps
        none."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                for p in parameters
            ]
            + [
                torch.tensor(
                    [p.grad is not None for p in parameters], device=self.device
                )
            ]
        )
        flat = self.sum(flat)
        *gradients, reached = flat.split(
            [p.numel() for p in parameters] + [len(parameters)]
        )
        for p, gradient, any_process in zip(
            parameters, gradients, reached.tolist(), strict=True
        ):
            p.grad = gradient.view_as(p) if any_process else None
