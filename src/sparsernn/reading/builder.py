"""From nodes to steps: weights become layers of torch, the other constants operands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .compute import literal
from .folding import Folded, first_line, unknown
from .graph import Graph, Node, refuse
from .model import OnnxModule, Spec, class_for
from .naming import Names
from .operators.table import TABLE
from .order import in_order
from .steps import Branch, Held, Operand, Step, Value

MAX_HOSTED = 4096  # whole numbers that a step carries itself; more are a buffer
Build = Callable[["Builder", Node], "list[Step] | None"]
LAYERS: dict[str, Build] = {}


def builds(*names: str) -> Callable[[Build], Build]:
    """Put a function into the table of operators with weights; it gives None for a node that has none."""

    def put(build: Build) -> Build:
        LAYERS.update(dict.fromkeys(names, build))
        return build

    return put


class Builder:
    """Makes the parts of a model: `parts` by name, each parameter once whatever shares it."""

    def __init__(self, folded: Folded, rewrite: Callable[[Builder, list[Node]], list[Node]]) -> None:
        self.folded, self.constants, self.names = folded, folded.constants, Names()
        self.parts: dict[str, Any] = {}
        self._layers: dict[Any, str] = {}
        self._parameters: dict[Any, nn.Parameter] = {}
        self._held: dict[str, str] = {}
        self._rewrite, self.widths = rewrite, folded.widths
        self.readers: dict[str, list[Node]] = {}
        self.makers: dict[str, Node] = {}
        self.done: set[int] = set()  # nodes that another one's layer has taken in
        self.inner: set[str] = set()  # values that a graph gives, or that its inner graphs read

    def model(self) -> OnnxModule:
        graph = self.folded.graph
        branch = self.branch(graph)
        names = tuple(given.name for given in graph.inputs)
        spec = Spec(graph.inputs, branch.steps, graph.outputs, branch.results)
        return class_for(names)(spec, self.parts, self.folded.dtype).eval()

    def branch(self, graph: Graph) -> Branch:
        self._know(graph.nodes, graph.outputs)
        nodes = in_order(self._rewrite(self, list(graph.nodes)), graph.outputs)
        self._know(nodes, graph.outputs)
        steps: list[Step] = []
        for node in nodes:
            if id(node) not in self.done:
                steps += self._steps(node)
        return Branch(tuple(_with_last(steps, graph.outputs)), tuple(map(self.operand, graph.outputs)))

    def _know(self, nodes: Sequence[Node], outputs: Sequence[str]) -> None:
        self.inner |= set(outputs)
        for node in nodes:
            self.inner |= {name for graph in node.graphs() for name in graph.reads()}
            for name in node.outputs:
                self.makers[name] = node
                self.readers[name] = []
        for node in nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def _steps(self, node: Node) -> list[Step]:
        try:
            made = LAYERS[node.op](self, node) if node.op in LAYERS else None
        except (RuntimeError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
            raise refuse(node.title, f"is not as its operator says: {first_line(error)}") from None
        if made is not None:
            return made
        if node.op not in TABLE or TABLE[node.op].module:
            raise unknown(node)
        return [Step(node.op, node.name, self.operands(node), node.outputs, node.attributes, node.version)]

    def step(self, node: Node, module: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Step:
        return Step(node.op, node.name, tuple(map(self.operand, inputs)), tuple(outputs), attributes, 0, module)

    def operands(self, node: Node) -> tuple[Operand, ...]:
        return tuple(map(self.operand, node.inputs))

    def operand(self, name: str) -> Operand:
        if not name:
            return None
        array = self.constants.get(name)
        if array is None:
            return Value(name)
        small = array.ndim == 0 if array.dtype.kind == "f" else array.size <= MAX_HOSTED
        return literal(array) if small else Held(self.hold(name))

    def hold(self, name: str) -> str:
        """The name of the parameter (of numbers) or buffer that a constant becomes."""
        if name not in self._held:
            own, array = self.names.tensor(name), self.constants[name]
            self._held[name] = own
            self.parts[own] = self.parameter(name) if array.dtype.kind == "f" else torch.from_numpy(array.copy())
        return self._held[name]

    def parameter(self, name: str, turned: bool = False) -> nn.Parameter:
        """A constant as a parameter, turned over or not. Exporters store a shared matrix once for each use: matrices of
        the same numbers are one parameter again."""
        array = self.constants[name].T if turned else self.constants[name]
        key: Any = name, turned
        if array.ndim > 1 and (array != array.reshape(-1)[:1]).any():
            key = array.shape, _digest(array)
        if key not in self._parameters:
            self._parameters[key] = fresh(array)
        return self._parameters[key]

    def layer(
        self, make: Callable[[], nn.Module], weights: dict[str, Any], weight: str, node: Node, also: Any = None
    ) -> str:
        """The name of a layer with these parameters (by their names in it); two nodes that have all in common, their
        class and options and what is said `also`, share it. weight: the constant that names it."""
        made = make()
        for name, value in weights.items():
            setattr(made, name, value)
        key = repr(made), tuple(id(value) for value in weights.values()), also
        if key not in self._layers:
            self._layers[key] = self.names.layer(weight, node.name, node.op)
            self.parts[self._layers[key]] = made
        return self._layers[key]

    def made(self, array: np.ndarray, *of: Any) -> nn.Parameter:
        """A parameter made of others; the same for what is made of the same, as `of` says it."""
        key = (*of, array.shape, _digest(array))
        if key not in self._parameters:
            self._parameters[key] = fresh(array)
        return self._parameters[key]

    def only_reader(self, name: str) -> Node | None:
        """The node that alone reads a value."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.inner else None

    def fixed(self, node: Node, place: int, what: str) -> np.ndarray:
        """The constant at an input that has to be one."""
        name = node.input(place)
        if name not in self.constants:
            raise refuse(node.title, f"has a {what} that is computed, or none; expected one that the file stores.")
        return self.constants[name]


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


def fresh(array: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array, order="C")))


def if_steps(builder: Builder, node: Node) -> list[Step]:
    ways = {name: builder.branch(graph) for name, graph in node.attributes.items() if isinstance(graph, Graph)}
    return [Step("If", node.name, builder.operands(node), node.outputs, ways, node.version)]


LAYERS["If"] = if_steps


def _with_last(steps: list[Step], results: Sequence[str]) -> list[Step]:
    """With the values that can be forgotten after each step; those of branches stay until the end."""
    inner = {n for step in steps for branch in step.branches() for s in branch.steps for n in _named(s)}
    kept = (
        set(results) | inner | {r.name for s in steps for b in s.branches() for r in b.results if isinstance(r, Value)}
    )
    found: list[Step] = []
    own = {name for step in steps for name in step.outputs}
    for step in reversed(steps):
        last = tuple(sorted({n for n in (*_named(step), *step.outputs) if n in own and n not in kept}))
        kept |= set(last)
        found.append(Step(**{**vars(step), "last": last}))
    return found[::-1]


def _named(step: Step) -> list[str]:
    inner = [name for branch in step.branches() for s in branch.steps for name in _named(s)]
    return [o.name for o in step.operands if isinstance(o, Value)] + inner
