"""What a file computes of constants alone is computed once, and an If whose condition is known becomes its branch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .compute import compute, literal
from .graph import Graph, Node, refuse
from .opening import KINDS
from .operators.elementwise import PAIRS
from .operators.table import MAX_NUMBERS, TABLE
from .steps import Step

_NO_LARGER = {"Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Flatten", "Clip", "Pad", "Expand", "Tile"}
_LITERALS = {"value_float": np.float32, "value_int": np.int64, "value_floats": np.float32, "value_ints": np.int64}


class Folded:
    """A graph without constants among its nodes. `constants`: all of them; `inputs`: those that are not fixed; `dtype`:
    the file's precision."""

    def __init__(self, graph: Graph, fixed: Mapping[str, Any]) -> None:
        self.constants: dict[str, np.ndarray] = {}
        self.widths = graph.widths
        self._alias: dict[str, str] = {}
        self._taken = {given.name for given in graph.inputs} | graph.defines()
        double = any(array.dtype == np.float64 for array in graph.constants.values())
        self.dtype = torch.float64 if double else torch.float32
        for name, value in fixed.items():
            self.constants[name] = _fixed(graph, name, value)
        self.inputs = tuple(g for g in graph.inputs if g.name not in fixed and g.name not in graph.constants)
        nodes, outputs = self._fold(graph)
        self.graph = Graph(tuple(nodes), self.inputs, outputs, {})

    def _fold(self, graph: Graph) -> tuple[list[Node], tuple[str, ...]]:
        self.constants.update({name: value for name, value in graph.constants.items() if name not in self.constants})
        nodes: list[Node] = []
        for node in graph.nodes:
            nodes += self._one(node.renamed(self._alias))
        return nodes, tuple(self._alias.get(name, name) for name in graph.outputs)

    def _one(self, node: Node) -> list[Node]:
        if node.op == "Constant":
            self.constants[node.outputs[0]] = _constant(node)
            return []
        if node.op in ("Identity", "Dropout") and node.inputs[0] not in self.constants:
            self._alias[node.outputs[0]] = node.inputs[0]
            return []
        if node.op == "If":
            return self._branch(node)
        if node.op == "Add" and (kept := self._beside_zero(node)):
            self._alias[node.outputs[0]] = kept
            return []
        known = [self.constants.get(name) if name else None for name in node.inputs]
        if next(node.graphs(), None) is None and all(v is not None or not n for v, n in zip(known, node.inputs)):
            self._compute(node, known)
            return []
        return [node]

    def _beside_zero(self, node: Node) -> str:
        """What a plain zero is added to, as exporters write for inputs that nothing else uses."""
        for zero, kept in (node.inputs, node.inputs[::-1]):
            array = self.constants.get(zero)
            if array is not None and array.ndim == 0 and not array and kept not in self.constants:
                return kept
        return ""

    def _branch(self, node: Node) -> list[Node]:
        ways = [node.get(name) for name in ("then_branch", "else_branch")]
        if not all(isinstance(way, Graph) for way in ways):
            raise refuse(node.title, "has no two branches.")
        condition = self.constants.get(node.inputs[0])
        if condition is None:
            folded = [Graph(tuple(nodes), (), outs, {}) for nodes, outs in (self._fold(self._own(w)) for w in ways)]
            return [replace(node, attributes={"then_branch": folded[0], "else_branch": folded[1]})]
        nodes, outputs = self._fold(self._own(ways[0] if bool(condition.reshape(-1)[0]) else ways[1]))
        self._alias.update(zip(node.outputs, outputs, strict=True))
        return nodes

    def _own(self, graph: Graph) -> Graph:
        """With names that nothing else has: branches that exclude each other may share theirs."""
        names = {}
        for name in graph.defines():
            own, n = name, 2
            while own in self._taken:
                own, n = f"{name}_{n}", n + 1
            self._taken.add(own)
            if own != name:
                names[name] = own
        return graph.renamed(names)

    def _compute(self, node: Node, known: list[np.ndarray | None]) -> None:
        if node.op not in TABLE:
            raise unknown(node)
        step = Step(node.op, node.name, (), node.outputs, node.attributes, node.version)
        operands = [None if value is None else literal(value) for value in known]
        try:
            _refuse_large(node.op, operands)
            found = compute(step, operands, torch.empty(0, dtype=self.dtype))
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
            raise refuse(node.title, f"can't be computed: {first_line(error)}") from None
        for name, value in zip(node.outputs, found):
            self.constants[name] = value.numpy() if isinstance(value, Tensor) else _plain(value)


def _refuse_large(op: str, operands: list[Any]) -> None:
    """A few numbers of a file may ask for any room: the size of a result is known before it is computed."""
    shapes = [tuple(value.shape) for value in operands if isinstance(value, (Tensor, np.ndarray))]
    if op == "Concat" and sum(math.prod(shape) for shape in shapes) > MAX_NUMBERS:
        raise ValueError(f"it makes more than {MAX_NUMBERS} numbers of constants.")
    if op == "Gather" and len(shapes) == 2 and all(shapes[0]):  # whichever axis the places are of
        shapes = [(math.prod(shapes[0]) // min(shapes[0]), math.prod(shapes[1]))]
    if op in (*_NO_LARGER, "Concat") or math.prod(max(math.prod(shape), 1) for shape in shapes) <= MAX_NUMBERS:
        return
    matrices = op == "MatMul" and all(len(shape) == 2 for shape in shapes)
    wanted = (shapes[0][0], shapes[1][1]) if matrices else np.broadcast_shapes(*shapes)
    if math.prod(wanted) > MAX_NUMBERS or not (matrices or op in PAIRS):
        raise ValueError(f"it makes more than {MAX_NUMBERS} numbers of constants.")


def unknown(node: Node) -> ValueError:
    cure = "Export the model with other operators; docs/from-onnx.md says what is refused."
    return refuse(node.title, "is an operator that is not read.", cure)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _constant(node: Node) -> np.ndarray:
    name, value = next(iter(node.attributes.items()), ("nothing", None))
    if name == "value" and isinstance(value, np.ndarray):
        return value
    if name not in _LITERALS:
        raise refuse(node.title, f"holds {name}, which is not read.")
    return np.array(value, dtype=_LITERALS[name])


def _plain(value: Any) -> np.ndarray:
    """Sizes, of dtype object, in a type of their own."""
    array = np.asarray(value)
    if array.dtype != object:
        return array
    numbers = array.reshape(-1).tolist()
    return array.astype(np.float32 if any(isinstance(n, float) for n in numbers) else np.int64)


def _fixed(graph: Graph, name: str, value: Any) -> np.ndarray:
    given = next((given for given in graph.inputs if given.name == name), None)
    if given is None:
        names = ", ".join(g.name for g in graph.inputs if g.name not in graph.constants)
        raise ValueError(f"from_onnx: inputs names {name}; the file's inputs are {names}.")
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value).astype(KINDS[given.kind])
    if given.shape is not None and array.ndim != len(given.shape) and array.size == 1:
        array = array.reshape([1] * len(given.shape))
    return array
