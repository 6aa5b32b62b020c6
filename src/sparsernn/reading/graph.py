"""A graph as plain data: what an ONNX file says, without its protobufs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Node:
    """One operation. attributes: numbers, strings, tuples of them, arrays, and graphs; version: of its operator set."""

    op: str
    name: str
    inputs: tuple[str, ...]  # "" for one that is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    version: int = 17

    @property
    def title(self) -> str:
        return title(self.op, self.name or next((name for name in self.outputs if name), ""))

    def get(self, attribute: str, default: Any = None) -> Any:
        return self.attributes.get(attribute, default)

    def input(self, place: int) -> str:
        """The name of an input; "" for one that is left out, or behind the last."""
        return self.inputs[place] if place < len(self.inputs) else ""

    def graphs(self) -> Iterator[Graph]:
        return (value for value in self.attributes.values() if isinstance(value, Graph))

    def renamed(self, names: Mapping[str, str]) -> Node:
        """With other names of values, inside of its graphs as well."""
        attributes = {k: v.renamed(names) if isinstance(v, Graph) else v for k, v in self.attributes.items()}
        inputs, outputs = (tuple(names.get(n, n) for n in many) for many in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs, attributes=attributes)

    def reads(self) -> set[str]:
        """Every value that it needs, in its graphs too."""
        inner = [name for graph in self.graphs() for name in graph.reads()]
        return {name for name in (*self.inputs, *inner) if name}


@dataclass(frozen=True)
class Given:
    """An input of the file. kind: ONNX's number of its element type; shape: a size, a name or None for each axis."""

    name: str
    kind: int
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Graph:
    nodes: tuple[Node, ...]
    inputs: tuple[Given, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray] = field(repr=False)
    widths: Mapping[str, int] = field(default_factory=dict, repr=False)  # last sizes of values, where they are known

    def defines(self) -> set[str]:
        return {*self.constants, *(name for node in self.nodes for name in node.outputs if name)}

    def reads(self) -> set[str]:
        """The values from outside."""
        inner = {name for node in self.nodes for name in node.reads()} | set(self.outputs)
        return inner - self.defines() - {given.name for given in self.inputs}

    def renamed(self, names: Mapping[str, str]) -> Graph:
        return replace(
            self,
            nodes=tuple(node.renamed(names) for node in self.nodes),
            outputs=tuple(names.get(n, n) for n in self.outputs),
            constants={names.get(n, n): value for n, value in self.constants.items()},
        )


def number(value: np.ndarray | float) -> float:
    """A float32 of the file as the number that was meant: 0.1, not 0.10000000149; it rounds to the same float32."""
    return float(str(np.float32(value)))


def title(op: str, name: str) -> str:
    return f"{name[:80]} ({op[:40]})"


def refuse(where: str, why: str, cure: str = "") -> ValueError:
    """The sentence of a file that can't become a model: which node, why, and what to do."""
    return ValueError(f"from_onnx: {where} {why}" + (f"\n{cure}" if cure else ""))
