r"""Where the gradients of several losses meet: their Gramian, and their weighted sum.

A gradient of each loss at every shared parameter, T copies of the network's size, is
what one would write down first. Two thirds of it are never needed. At the weight W
`[o, i]` of a linear layer with the inputs X `[N, i]`, loss t has the gradient
$D_t^\top X$, with $D_t$ `[N, o]` the gradient that arrives at the layer's output, so
that

- inner products are $\langle D_s^\top X, D_t^\top X\rangle = \langle R D_s, R D_t
  \rangle$ for every R with $R^\top R = X X^\top$: a triangular one, `[N, N]`, from the
  QR decomposition of $X^\top$;
- the weighted sum is $(\sum_t w_t D_t)^\top X$: one product for all losses.

Where a batch is smaller than a layer is wide, $D_t$ and $R D_t$ are smaller than the
gradient, and no loss needs a product of its own with X.

At the features Z `[N, i]`, which each loss reads through a linear layer of its own with
the weights $W_t$ `[o, i]`, its gradient is $D_t W_t$, and

- inner products are $\langle D_s W_s, D_t W_t\rangle = \langle D_s^\top D_t, W_s
  W_t^\top\rangle$, of two small matrices;
- the weighted sum is one product again, of the $w_t D_t$ side by side with the $W_t$
  below each other.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from mtmm_lib.balancing.base import processes, sum_over_processes
from mtmm_lib.balancing.graph import Graph, Heads, Product

Level = Literal["parameters", "features"]

#: Columns of the Jacobian that are multiplied at once: as many as a CPU's caches hold,
#: or as keep a GPU busy.
COLUMNS, COLUMNS_ON_GPU = 2**15, 2**18

#: How many multiplications of matrices about as wide as high take the time of one with
#: a matrix of T rows and many columns, which has to be copied first.
FLAT = 4

#: A smaller weight's gradients are computed sooner than anything is saved on them.
SMALLEST = 2**14


@dataclass(eq=False)
class Meeting:
    """A tensor at which gradients meet.

    Args:
        at: the tensor.
        rows: for each loss its gradient there, or `None` if it does not get there.
        inputs: X `[N, i]`, where the rows are $D_t$ `[N, o]` and the gradients
            $D_t^\\top X$.
    """

    at: Tensor
    rows: list[Tensor | None]
    inputs: Tensor | None = None

    def there(self) -> dict[int, Tensor]:
        """Number of a loss → its row, for the losses that get there."""
        return {t: row for t, row in enumerate(self.rows) if row is not None}

    def blocks(self, width: int) -> Iterator[Sequence[Tensor]]:
        """Vectors with the inner products of the gradients, in parts that have no more
        than `width` entries: for each part the vector of every loss that gets there."""
        rows = list(self.there().values())
        if self.inputs is None:
            flat = (torch.split(row.reshape(-1), width) for row in rows)
            yield from zip(*flat, strict=True)
            return
        triangular = torch.linalg.qr(self.inputs.T, mode="r").R
        columns = max(1, width // len(triangular))
        for parts in zip(*(torch.split(row, columns, 1) for row in rows), strict=True):
            yield [(triangular @ part).reshape(-1) for part in parts]

    def weighted_sum(self, weights: Sequence[float]) -> Tensor:
        """The weighted sum of the rows, which are then gone."""
        there = self.there()
        first = self.at if self.inputs is None else next(iter(there.values()))
        total = torch.zeros_like(
            first, dtype=torch.promote_types(first.dtype, torch.float32)
        )
        for t, row in there.items():
            total.add_(row, alpha=weights[t])
            self.rows[t] = None  # its memory is free from here on
        return total.to(first.dtype)


class Fan:
    r"""The gradients $D_t W_t$ of losses that read the features through linear layers
    of their own; see above.

    Args:
        heads: those layers.
        rows: for each loss $D_t$ `[N, o]`.
    """

    def __init__(self, heads: Heads, rows: Sequence[Tensor]) -> None:
        self.edge, self.tasks = heads.edge, len(rows)
        # All D_t side by side `[N, S]`, all W_t below each other `[S, i]`, and whose
        # each of the S is.
        self.rows, self.weights = torch.cat(list(rows), 1), torch.cat(heads.weights)
        owner = [t for t, w in enumerate(heads.weights) for _ in range(len(w))]
        self.owner = torch.tensor(owner, device=self.rows.device)

    def gramian(self) -> Tensor:
        """The inner products, `[T, T]`."""
        wide = _wide(self.rows.device)
        rows, weights = self.rows.to(wide), self.weights.to(wide)
        products = (rows.T @ rows).mul_(weights @ weights.T)
        # Summed by owner, down and across; a product with zeros and ones would hand on
        # what is not finite to all.
        down = products.new_zeros(self.tasks, len(products))
        down.index_add_(0, self.owner, products)
        total = products.new_zeros(self.tasks, self.tasks)
        total.index_add_(1, self.owner, down)
        # Where D W is zero though D and W are not, rounding may leave less than that.
        total.diagonal().clamp_(min=0)
        return total

    def weighted_sum(self, weights: Sequence[float]) -> Tensor:
        """Of the gradients, `[N, i]`."""
        wide = torch.promote_types(self.rows.dtype, torch.float32)
        each = torch.tensor(weights, dtype=wide, device=self.rows.device)
        total = (self.rows * each[self.owner]) @ self.weights.to(wide)
        return total.to(self.rows.dtype)


class TaskGradients:
    r"""The gradients of several losses, where they meet and where they do not.

    At level `"parameters"` they meet in the parameters that two or more losses reach; a
    loss that does not reach one of them has a zero gradient there. At level
    `"features"` they meet in z, `[B, ...]`, through which all of them go. Everything
    else belongs to one loss.

    In several processes each has a share of every gradient, of which the whole one is
    the sum. The Gramian is that of the whole gradients; `apply` leaves each process
    with a share of the result.

    Args:
        losses: task → scalar that needs a gradient.
        z: the cut; not used at level `"parameters"`.
        level: where the gradients meet.
        parameters: those that are trained; by default whatever the losses reach.
        keep_graph: leave the graph as it is, for another backward pass.
        whole: every row is a whole gradient, for those who want to change it.

    Raises:
        ValueError: at level `"features"`, when there is no cut, or when losses reach
            what others reach, too, but not through it.
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor],
        z: Tensor | None,
        level: Level,
        parameters: Sequence[Tensor] | None = None,
        *,
        keep_graph: bool = False,
        whole: bool = False,
    ) -> None:
        self.names = list(losses)
        self.z = z if level == "features" else None
        #: The parameters that one loss alone reaches, with its gradient.
        self.own: list[tuple[Tensor, Tensor]] = []
        self.meetings: list[Meeting] = []
        #: The meeting at the features, where linear layers fan out from there.
        self.fan: Fan | None = None
        if level == "features":
            self._at_features(losses, parameters)
        elif level == "parameters":
            self._at_parameters(list(losses.values()), parameters, keep_graph, whole)
        else:
            raise ValueError(f"level is 'parameters' or 'features', got {level!r}")

    def _at_parameters(
        self,
        losses: list[Tensor],
        parameters: Sequence[Tensor] | None,
        keep_graph: bool,
        whole: bool,
    ) -> None:
        graph = Graph.of(losses)
        parameters = list(graph.leaves if parameters is None else parameters)
        # A process of several adds up gradients with others, whose batch is another.
        products = {} if whole or processes() > 1 else _products(graph, parameters)
        wanted: list[Any] = [
            GradientEdge(products[p].node, 0) if p in products else p
            for p in parameters
        ]
        rows: list[list[Tensor | None]] = [[None] * len(losses) for _ in parameters]
        with ExitStack() as stack:
            # The gradient that autograd hands out for an edge is that before hooks of
            # tensors, if the node there is run, so it is also caught as it goes in.
            arrived: dict[int, Tensor] = {}
            for i, p in enumerate(parameters):
                if p in products:
                    catch = functools.partial(_catch, arrived, i)
                    stack.enter_context(products[p].node.register_prehook(catch))
            for t, loss in enumerate(losses):
                reached = [
                    i
                    for i, p in enumerate(parameters)
                    if graph.leaves.get(p, 0) >> t & 1
                ]
                if not reached:
                    continue
                arrived.clear()
                found = torch.autograd.grad(
                    loss,
                    [wanted[i] for i in reached],
                    retain_graph=keep_graph or t < len(losses) - 1,
                    allow_unused=True,
                )
                for i, gradient in zip(reached, found, strict=True):
                    rows[i][t] = arrived.get(i, gradient)
        reach = [[g is not None for g in row] for row in rows]
        if processes() > 1:  # a task may have labels in some processes only
            votes = torch.tensor(reach, dtype=torch.float32, device=losses[0].device)
            reach = (sum_over_processes(votes) > 0).tolist()
        for p, row, there in zip(parameters, rows, reach, strict=True):
            if sum(there) < 2:
                self.own += [
                    (p, g.T @ products[p].inputs if p in products else g)
                    for g in row
                    if g is not None
                ]
                continue
            if processes() > 1:
                shares = [torch.zeros_like(p) if g is None else g for g in row]
                row = [
                    g if yes else None
                    for g, yes in zip(
                        sum_over_processes(torch.stack(shares)), there, strict=True
                    )
                ]
            inputs = products[p].inputs if p in products else None
            self.meetings.append(Meeting(p, row, inputs))

    def _at_features(
        self, losses: Mapping[str, Tensor], parameters: Sequence[Tensor] | None
    ) -> None:
        if self.z is None:
            raise ValueError(
                "the model has no cut that all tasks go through, so that there are no "
                "features to compare gradients at; use level='parameters'"
            )
        graph = Graph.of(list(losses.values()), self.z)
        leaves = _leaves(graph, parameters)
        around = _around(losses, self.z, leaves)
        if around:
            raise ValueError(
                f"the losses of tasks {around} reach shared parameters around the cut, "
                "where their gradients at the features would not show it; use "
                "level='parameters' (the cut is the output of the trunk under hard "
                "sharing and of the fusion otherwise; a compiled forward pass has none)"
            )
        heads = graph.heads(self.z, len(losses)) if self.z.requires_grad else None
        if heads is not None and self._fan_out(list(losses.values()), heads, leaves):
            return
        row: list[Tensor | None] = []
        for t, loss in enumerate(losses.values()):
            mine = [p for p, reached_by in leaves.items() if reached_by >> t & 1]
            wanted = [self.z, *mine] if self.z.requires_grad else mine
            gradients = list(
                torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
            )
            row.append(gradients.pop(0) if self.z.requires_grad else None)
            self.own += [
                (p, g) for p, g in zip(mine, gradients, strict=True) if g is not None
            ]
        if any(g is not None for g in row) or processes() > 1:
            self.meetings = [Meeting(self.z, row)]

    def _fan_out(
        self, losses: list[Tensor], heads: Heads, leaves: Mapping[Tensor, int]
    ) -> bool:
        """One pass through linear heads for all losses, if these are narrow enough for
        it to save anything; says whether it was taken."""
        assert self.z is not None
        width = heads.weights[0].shape[1]
        samples = self.z.numel() // width
        out = sum(len(weight) for weight in heads.weights)
        # In multiplications: Dᵀ D and W Wᵀ, against a Gramian of whole gradients.
        whole = len(losses) ** 2 * samples * width
        if out**2 * (samples + width) >= FLAT * whole:
            return False
        wanted: list[Any] = [GradientEdge(node, 0) for node in heads.nodes]
        arrived: dict[int, Tensor] = {}
        with ExitStack() as stack:
            for t, node in enumerate(heads.nodes):
                catch = functools.partial(_catch, arrived, t)
                stack.enter_context(node.register_prehook(catch))
            # No head gets anything from another's loss.
            found = torch.autograd.grad(
                losses, [*wanted, *leaves], retain_graph=True, allow_unused=True
            )
        rows = [arrived.get(t, found[t]) for t in range(len(losses))]
        there = [row for row in rows if row is not None]
        if len(there) < len(rows):
            return False
        self.fan = Fan(heads, there)
        self.own += [
            (p, g)
            for p, g in zip(leaves, found[len(rows) :], strict=True)
            if g is not None
        ]
        return True

    def gramian(self) -> np.ndarray:
        r"""$G_{st} = g_s^\top g_t$, float64 `[T, T]`.

        Raises:
            FloatingPointError: when a gradient is not finite (named: the task).
        """
        total = self._multiplied() if self.fan is None else self.fan.gramian()
        if self.z is not None and processes() > 1:
            total = sum_over_processes(total)
        total = total.tril() + total.tril(-1).T
        gramian: np.ndarray = total.cpu().double().numpy()
        finite = np.isfinite(np.diagonal(gramian))
        if not finite.all():
            wrong = [n for n, yes in zip(self.names, finite, strict=True) if not yes]
            raise FloatingPointError(f"the gradients of tasks {wrong} are not finite")
        return gramian

    def _multiplied(self) -> Tensor:
        """The Gramian, right on and below the diagonal at least."""
        places = self.meetings
        device = places[0].at.device if places else torch.device("cpu")
        wide, size = _wide(device), len(self.names)
        total = torch.zeros(size, size, dtype=wide, device=device)
        width = min(
            COLUMNS if device.type == "cpu" else COLUMNS_ON_GPU,
            max((place.at.numel() for place in places), default=0),
        )
        # At least one column of every R D_t.
        least = (len(p.inputs) for p in places if p.inputs is not None)
        width = max(width, *least, 1)
        buffer = torch.empty(size, width, dtype=wide, device=device)
        for place in places:
            there = place.there()
            for parts in place.blocks(width):
                block = buffer[: len(there), : len(parts[0])]
                torch._foreach_copy_(list(block.unbind()), list(parts))
                if len(there) == size:
                    # Above the diagonal stands what stands below it: a quarter of the
                    # matrix, T/2 by T/2, need not be multiplied out.
                    half = size // 2
                    total[:, :half].addmm_(block, block[:half].T)
                    total[half:, half:].addmm_(block[half:], block[half:].T)
                else:
                    index = torch.tensor(list(there), device=device)
                    total[index.unsqueeze(1), index] += block @ block.T
        return total

    def meeting(self) -> list[bool]:
        """Which of the losses meet others, that is, get to one of the places where
        gradients meet."""
        everywhere = [place.there() for place in self.meetings]
        found = [
            self.fan is not None or any(t in there for there in everywhere)
            for t in range(len(self.names))
        ]
        if self.z is not None and processes() > 1:
            votes = torch.tensor(found, dtype=torch.float32, device=self.z.device)
            found = (sum_over_processes(votes) > 0).tolist()
        return found

    def apply(self, weights: Iterable[float], unweighted: Tensor | None = None) -> None:
        r"""Adds the result to `.grad`: $\sum_t w_t\,g_t$ where gradients meet, each
        loss's own elsewhere. It works once: the gradients are then gone.

        Args:
            weights: one for each loss.
            unweighted: at level `"features"`, a scalar whose gradient goes back in the
                same pass.
        """
        _add([p for p, _ in self.own], [g for _, g in self.own], 1.0)
        weights = list(weights)
        if self.z is not None:
            self._go_on_from_features(weights, unweighted)
            return
        whole = [place for place in self.meetings if place.inputs is None]
        for t, weight in enumerate(weights):
            here = [(place.at, place.rows[t]) for place in whole]
            found = [(p, g) for p, g in here if g is not None]
            # Every process has the whole of it, and the shares will be added up.
            _add([p for p, _ in found], [g for _, g in found], weight / processes())
            for place in whole:
                place.rows[t] = None  # its memory is free from here on
        for place in self.meetings:
            if place.inputs is not None:
                gradient, total = _grad(place.at), place.weighted_sum(weights)
                gradient.addmm_(total.T, place.inputs)

    def _go_on_from_features(
        self, weights: Sequence[float], unweighted: Tensor | None
    ) -> None:
        roots = [
            (get_gradient_edge(place.at), place.weighted_sum(weights))
            for place in self.meetings
        ]
        if self.fan is not None:
            roots.append((self.fan.edge, self.fan.weighted_sum(weights)))
        if unweighted is not None:
            roots.append((get_gradient_edge(unweighted), torch.ones_like(unweighted)))
        if roots:
            torch.autograd.backward(
                [root for root, _ in roots], [gradient for _, gradient in roots]
            )


def go_around(
    losses: Mapping[str, Tensor],
    z: Tensor | None,
    parameters: Sequence[Tensor] | None = None,
) -> list[str]:
    """The tasks whose losses reach, other than through the cut z, what another loss
    reaches, too; all tasks where there is no cut. Arguments as for `TaskGradients`."""
    if z is None:
        return list(losses)
    graph = Graph.of(list(losses.values()), z)
    return _around(losses, z, _leaves(graph, parameters))


def _leaves(graph: Graph, parameters: Sequence[Tensor] | None) -> dict[Tensor, int]:
    """Parameter → the set of losses that reach it not through the cut."""
    if parameters is None:
        return graph.leaves
    # What else the losses reach is nobody's parameter.
    return {p: graph.leaves[p] for p in parameters if p in graph.leaves}


def _around(
    losses: Mapping[str, Tensor], z: Tensor, leaves: Mapping[Tensor, int]
) -> list[str]:
    below = Graph.of([z]).leaves if z.requires_grad else {}
    shared = 0
    for p, reached_by in leaves.items():
        # A set of one is a power of two; without its highest digit nothing is left.
        if p in below or reached_by & (reached_by - 1):
            shared |= reached_by
    return [name for t, name in enumerate(losses) if shared >> t & 1]


def _catch(
    arrived: dict[int, Tensor], number: int, gradients: tuple[Tensor, ...]
) -> None:
    """A hook that writes down what arrives at a node."""
    if gradients[0] is not None:
        arrived[number] = gradients[0]


def _products(graph: Graph, parameters: Iterable[Tensor]) -> dict[Tensor, Product]:
    """The weights whose gradients need not be written down for each loss."""
    found = {}
    for p in parameters:
        count = graph.leaves.get(p, 0).bit_count()
        if count < 2 or p.dim() != 2 or p.numel() < SMALLEST:
            continue
        if p.device.type != "cpu" or p.dtype not in (torch.float32, torch.float64):
            continue  # where a QR decomposition is slow, or there is none
        product = graph.product(p)
        if product is None or product.inputs.dtype != p.dtype:
            continue
        # In multiplications, divided by N: QR and R D_t for each loss, against a
        # further Dᵀ X for each loss but one.
        (n, width), out = product.inputs.shape, len(p)
        if n * (width + count * out) < (count - 1) * width * out:
            found[p] = product
    return found


def _wide(device: torch.device) -> torch.dtype:
    """In what inner products are computed: in double precision where there is one, also
    because squares of small gradients would vanish."""
    return torch.float32 if device.type == "mps" else torch.float64


def _grad(p: Tensor) -> Tensor:
    """The `.grad` of a parameter, zeros if there was none; in the layout of the
    parameter, which optimizers count on."""
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    return p.grad


def _add(parameters: list[Tensor], gradients: list[Tensor], weight: float) -> None:
    if parameters:
        torch._foreach_add_([_grad(p) for p in parameters], gradients, alpha=weight)
