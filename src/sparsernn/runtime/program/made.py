"""A step program together with the structure of the model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_unflatten

from .examples import Inputs
from .program import Port, Program
from .values import Value


@dataclass(frozen=True)
class Made:
    """inputs, axes: the example and the time axis of each of its tensors, None for what is the same at each step.

    leaves: of the model's output, each the number of an output of the program, or a tuple that holds a fixed value;
    structure: how they belong together. output_axes: the time axis of each output's tensor in the whole call, None for
    a value of the sequence so far, and in a model of one step. becomes: in such a model, the number of an input tensor
    that is a state -> the leaf of the output that is its next value.
    """

    program: Program
    inputs: Inputs
    axes: tuple[int | None, ...]
    leaves: tuple[Any, ...]
    structure: TreeSpec
    output_axes: tuple[int | None, ...]
    becomes: Mapping[int, int] = field(default_factory=dict)

    def shaped(self, outputs: Sequence[Tensor | None]) -> Any:
        """The program's outputs as the model gives them, None where nothing is due."""
        leaves = [outputs[leaf] if isinstance(leaf, int) else leaf[0] for leaf in self.leaves]
        return tree_unflatten(leaves, self.structure)


@dataclass
class Outputs:
    """The outputs of a program that is being made."""

    ports: list[Port] = field(default_factory=list)
    leaves: list[Any] = field(default_factory=list)
    axes: list[int | None] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the next one."""
        return f"output{len(self.ports)}"

    def add(self, leaf: Any, port: Port | None, value: Value | None) -> None:
        """One more leaf of the model's output; without a port it is a fixed value."""
        if port is None:
            self.leaves.append((leaf,))
            return
        self.leaves.append(len(self.ports))
        self.ports.append(port)
        self.axes.append(None if value is None else value.axis)

    def made(
        self,
        program: Program,
        inputs: Inputs,
        axes: Sequence[int | None],
        structure: TreeSpec,
        becomes: Mapping[int, int] | None = None,
    ) -> Made:
        places = tuple(self.leaves), structure, tuple(self.axes)
        return Made(program, inputs, tuple(axes), *places, dict(becomes or {}))
