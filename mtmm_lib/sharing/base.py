r"""What all sharings have in common, and hard sharing, the simplest of them.

Shapes: B batch, L tokens, D width, T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from torch import Tensor, nn

from mtmm_lib.batch import Shared, usable

Trunk = Callable[[int, int], nn.Sequential]


def mlp_trunk(in_dim: int, dim: int) -> nn.Sequential:
    """The default trunk: two stages, each a linear layer and a ReLU."""
    return nn.Sequential(
        nn.Sequential(nn.Linear(in_dim, dim), nn.ReLU()),
        nn.Sequential(nn.Linear(dim, dim), nn.ReLU()),
    )


def build_trunk(trunk: Trunk | None, in_dim: int, dim: int) -> nn.Sequential:
    """A fresh trunk, of the default kind for `None`.

    Raises:
        TypeError: when the factory returns no `nn.Sequential` of at least one stage.
    """
    if isinstance(trunk, nn.Module):  # its weights would serve several tasks
        raise TypeError(
            "a trunk is a function (in_dim, dim) -> nn.Sequential of stages, which is "
            f"called as often as fresh ones are needed; got the module {trunk!r}"
        )
    built = (mlp_trunk if trunk is None else trunk)(in_dim, dim)
    if not isinstance(built, nn.Sequential) or not len(built):
        raise TypeError(
            "a trunk is a function (in_dim, dim) -> nn.Sequential of stages, got "
            f"{built!r}"
        )
    return built


def check_strength(strength: float) -> None:
    """Raises `ValueError` for a negative strength of a penalty, or NaN."""
    if not strength >= 0:
        raise ValueError(f"strength needs to be >= 0, got {strength}")


class Sharing(nn.Module):
    """Base of all sharings.

    Args:
        tasks: the tasks' names, in any order; wherever tasks are stacked, they stand in
            alphabetical order, the order of the attribute `tasks`.
        in_dim: width of what the sharing reads.
        dim: width of what a trunk returns; the attribute `dim` is the width of a task's
            feature.

    Raises:
        ValueError: when a task is named twice or none is named.
    """

    #: True where one output, the same for every task, is all that the tasks see of the
    #: input.
    one_trunk = False
    #: `[B, D]` may come in place of `[B, 1, D]`, and gives `[B, dim]` then.
    takes_vectors = False

    # What a call returns; of a module in general PyTorch says `Any`.
    __call__: Callable[..., Shared]

    def __init__(self, tasks: Sequence[str], in_dim: int, dim: int) -> None:
        super().__init__()
        if isinstance(tasks, str):
            raise TypeError(f"tasks is a list of names, got {tasks!r}: [{tasks!r}]?")
        # Sorted, so that neither random draws nor a saved state depend on the order in
        # which tasks are named.
        self.tasks = tuple(sorted(usable(task, "task") for task in tasks))
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(
                "a sharing needs at least one task and no name twice, got "
                f"{list(tasks)}"
            )
        self.in_dim, self.dim = in_dim, dim

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters that this task's loss reaches and no other task's, where there
        are two or more.

        A parameter that several tasks reach is shared as a whole, even if one row of it
        is read by one task alone. Penalties do not count: they are nobody's loss, and
        balancers add them unweighted.
        """
        return []


class HardSharing(Sharing):
    r"""Hard parameter sharing: every task reads the same trunk, $h_t = f_\theta(z)$
    (Caruana, 1997).

    Shapes: `[B, L, in_dim]` → `[B, L, dim]`, the same tensor for every task.
    """

    one_trunk = True

    def __init__(
        self, tasks: Sequence[str], in_dim: int, dim: int, trunk: Trunk | None = None
    ) -> None:
        super().__init__(tasks, in_dim, dim)
        self.trunk = build_trunk(trunk, in_dim, dim)
        # Linear layers see a sequence of one as a vector anyway, each for itself; for
        # small ones these turns there and back are a good part of the work. A trunk of
        # one's own gets what the sharing is promised, [B, L, D].
        self.takes_vectors = trunk is None

    def forward(self, z: Tensor) -> Shared:
        h = self.trunk(z)
        return Shared({task: h for task in self.tasks})


class Named(Protocol):
    """Whatever has a name, as a task has."""

    name: str


NamedTask = TypeVar("NamedTask", bound=Named)
BuiltModel = TypeVar("BuiltModel")


def separate(
    build: Callable[[list[NamedTask]], BuiltModel], tasks: Sequence[NamedTask]
) -> dict[str, BuiltModel]:
    """The baseline that shares nothing: one model per task.

    Args:
        build: makes a model for a list of tasks; it is called once with each task
            alone.
        tasks: the tasks.

    Returns:
        task's name → its own model.
    """
    return {task.name: build([task]) for task in tasks}
