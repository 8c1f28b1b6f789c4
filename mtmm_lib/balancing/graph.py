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
from torch.autograd.graph import Node, get_gradient_edge

Edges = tuple[tuple[Node | None, int], ...]

NO_EDGE = (None, 0)

#: Which input of a product of matrices is the second factor.
SECOND_FACTOR = {"AddmmBackward0": 2, "MmBackward0": 1}


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
class Graph:
    """The part of the graph that some losses depend on, other than through a cut.

    Losses are numbered, and a set of them is a whole number whose binary digits say who
    is in it, so that joining two sets is one `|`: of the losses 0, 1 and 2, the set 5 =
    101₂ holds 0 and 2.

    Args:
        leaves: what collects a gradient → the set of losses that depend on it.
        nodes: a leaf → its node.
        inputs: a node → where its inputs come from: nodes, and which of their results.
    """

    leaves: dict[Tensor, int] = field(default_factory=dict)
    nodes: dict[Tensor, Node] = field(default_factory=dict)
    inputs: dict[Node, Edges] = field(default_factory=dict)

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
                    edges = tuple(NO_EDGE if e == barrier else e for e in edges)
                inputs[node] = edges
                waiting.append((node, True))
                waiting += [
                    (n, False) for n, _ in edges if n is not None and n not in inputs
                ]
        # Then in the other order, from the losses on: a node's set is complete before
        # it is handed on.
        sets = dict.fromkeys(listed, 0)
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
        # What autograd keeps for its own product Dᵀ X; see "saved tensors" in PyTorch's
        # notes on autograd.
        if getattr(node, "_saved_alpha", 1) != 1 or weight._backward_hooks:
            return None
        inputs = getattr(node, "_saved_mat1" if used[1] == 2 else "_saved_self")
        if inputs is None or inputs.layout != torch.strided or inputs.dim() != 2:
            return None
        return Product(node, inputs.detach())

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
