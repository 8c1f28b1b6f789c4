r"""What losses depend on, read from autograd's graph.

Each node of the graph is an operation of the forward pass and knows, as
`next_functions`, the nodes that its inputs came from; where nothing precedes it stands
a leaf's node, which collects the leaf's gradient. A linear layer, say, of an input that
came from a ReLU, is

    AddmmBackward0 ── bias's node
                   ├─ ReluBackward0 ── …                       the input X
                   └─ TBackward0 ── weight's node              the product X Wᵀ
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

Edges = tuple[tuple[Node | None, int], ...]

NO_EDGE = (None, 0)

#: Which input of a product of matrices is the second factor.
SECOND_FACTOR = {"AddmmBackward0": 2, "MmBackward0": 1}

#: What hands on the same numbers in another shape.
RESHAPES = {"SqueezeBackward0", "SqueezeBackward1", "ViewBackward0"}


@dataclass(eq=False)
class Product:
    """X Wᵀ in a forward pass, the only use of the parameter W `[o, i]`.

    The gradient of W is Dᵀ X, where D `[N, o]` is the gradient that arrives at `node`.

    Args:
        node: the node of the product.
        inputs: X `[N, i]`; of tokens all in one list.
    """

    node: Node
    inputs: Tensor


@dataclass(eq=False)
class Heads:
    """Linear layers that read the cut, one for each loss, which gets to it in no other
    way.

    The gradient of loss t at the cut is $D_t W_t$, where $D_t$ `[N, o]` is the gradient
    that arrives at the product Z Wₜᵀ.

    Args:
        edge: where a gradient of Z `[N, i]`, the cut in the shape in which they read
            it, goes back from.
        nodes: for each loss the node of its product.
        weights: for each loss W `[o, i]`.
    """

    edge: GradientEdge
    nodes: list[Node]
    weights: list[Tensor]


@dataclass(eq=False)
class Graph:
    """The part of the graph that some losses depend on, other than through a cut.

    Losses are numbered, and a set of them is a whole number whose binary digits say who
    is in it, so that joining two sets is one `|`: of the losses 0, 1 and 2, the set 5 =
    101₂ holds 0 and 2.

    Args:
        leaves: what collects a gradient → the set of losses that depend on it.
        nodes: a leaf → its node.
        inputs: a node → where its inputs come from: nodes, and which of their results.
        sets: a node → the set of losses that depend on it.
        at_cut: the nodes that the cut goes into, and as which input.
    """

    leaves: dict[Tensor, int] = field(default_factory=dict)
    nodes: dict[Tensor, Node] = field(default_factory=dict)
    inputs: dict[Node, Edges] = field(default_factory=dict)
    sets: dict[Node, int] = field(default_factory=dict)
    at_cut: list[tuple[Node, int]] = field(default_factory=list)

    @classmethod
    def of(cls, losses: Sequence[Tensor], cut: Tensor | None = None) -> Graph:
        """Walks back from the losses, which need gradients, as far as the cut."""
        barrier = None
        if cut is not None and cut.requires_grad:
            barrier = get_gradient_edge(cut)[:2]
        roots = [get_gradient_edge(loss)[:2] for loss in losses]
        found = cls()
        inputs = found.inputs
        # First depth first: a node is listed when all that it depends on is listed.
        listed: list[Node] = []
        waiting = [(node, False) for node, number in roots if (node, number) != barrier]
        while waiting:
            node, done = waiting.pop()
            if done:  # so is all that it depends on
                listed.append(node)
            elif node not in inputs:
                edges = node.next_functions
                if barrier in edges:
                    found.at_cut += [
                        (node, slot) for slot, e in enumerate(edges) if e == barrier
                    ]
                    edges = tuple(NO_EDGE if e == barrier else e for e in edges)
                inputs[node] = edges
                waiting.append((node, True))
                waiting += [
                    (n, False) for n, _ in edges if n is not None and n not in inputs
                ]
        # Then in the other order, from the losses on: a node's set is complete before
        # it is handed on.
        sets = found.sets = dict.fromkeys(listed, 0)
        for number, root in enumerate(roots):
            if root != barrier:
                sets[root[0]] |= 1 << number
        for node in reversed(listed):
            edges, reached_by = inputs[node], sets[node]
            for source, _ in edges:
                if source is not None:
                    sets[source] |= reached_by
            if not edges and hasattr(node, "variable"):
                found.leaves[node.variable] = reached_by
                found.nodes[node.variable] = node
        return found

    def product(self, weight: Tensor) -> Product | None:
        """The product of matrices that a weight is used in, where it is used in nothing
        else, as the weights of most linear layers are; `None` for all other parameters.

        Weights that something looks at or changes on their way, such as a hook, mixed
        precision or a parametrisation, are among the others.
        """
        transposed = self._only_user(self.nodes[weight])
        if transposed is None or transposed[0].name() != "TBackward0":
            return None
        used = self._only_user(transposed[0])
        if used is None or used[1] != SECOND_FACTOR.get(used[0].name()):
            return None
        node = used[0]
        if weight._backward_hooks:
            return None
        inputs = _saved(node, "_saved_mat1" if used[1] == 2 else "_saved_self")
        return None if inputs is None else Product(node, inputs)

    def heads(self, cut: Tensor, losses: int) -> Heads | None:
        """The linear layers through which all losses, of which there are so many, get
        to the cut; `None` where something else stands there.

        It may be reshaped on the way, for all of them at once.
        """
        edge, users = get_gradient_edge(cut), self.at_cut
        while len(users) == 1 and users[0][0].name() in RESHAPES:
            edge = GradientEdge(users[0][0], 0)
            users = self.users.get(edge.node, [])
        found = {self.sets[node]: node for node, _ in users}
        alone = [1 << t for t in range(losses)]
        if len(users) != losses or any(one not in found for one in alone):
            return None
        if any(SECOND_FACTOR.get(node.name()) != slot + 1 for node, slot in users):
            return None
        nodes = [found[one] for one in alone]
        weights = [_saved(node, "_saved_mat2") for node in nodes]  # [i, o]
        plain = [weight.T for weight in weights if weight is not None]
        return Heads(edge, nodes, plain) if len(plain) == losses else None

    @cached_property
    def users(self) -> dict[Node, list[tuple[Node, int]]]:
        """A node → the nodes that its result goes into, and as which input."""
        found: dict[Node, list[tuple[Node, int]]] = {}
        for node, edges in self.inputs.items():
            for slot, (source, _) in enumerate(edges):
                if source is not None:
                    found.setdefault(source, []).append((node, slot))
        return found

    def _only_user(self, node: Node) -> tuple[Node, int] | None:
        users = self.users.get(node, [])
        return users[0] if len(users) == 1 else None


def _saved(node: Node, name: str) -> Tensor | None:
    """A factor that a product of matrices keeps for its backward pass, if it is an
    ordinary matrix, and the product no multiple; see "saved tensors" in PyTorch's notes
    on autograd."""
    if getattr(node, "_saved_alpha", 1) != 1:
        return None
    factor: Tensor | None = getattr(node, name)
    if factor is None or factor.layout != torch.strided or factor.dim() != 2:
        return None
    return factor.detach()
