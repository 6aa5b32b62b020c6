"""The model that a file becomes: layers of torch, and a forward that runs the steps of the graph."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .compute import compute
from .graph import Given
from .naming import identifier
from .steps import Branch, Held, Operand, Step, Value, everything

TAKEN = " taken"  # among the values that are watched: the ways of Ifs


@dataclass(frozen=True)
class Spec:
    """What a model runs. inputs: of the file, apart from those that were fixed; results: what its outputs are."""

    inputs: tuple[Given, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    results: tuple[Operand, ...]


class OnnxModule(nn.Module):
    """A plain module made of an ONNX file by `from_onnx`; its submodules are torch's own layers.

    `forward` takes the file's inputs, in its order or by name, and gives its output, or a tuple of them. States are
    inputs and outputs as in the file. `explain()` lists inputs, outputs and steps.
    """

    spec: Spec
    precision: Tensor

    def __init__(self, spec: Spec, parts: Mapping[str, nn.Module | nn.Parameter | Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.spec = spec
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.register_buffer(name, part)
        self.register_buffer("precision", torch.empty(0, dtype=dtype), persistent=False)

    def run(self, given: Sequence[Any], watch: dict[str, Any] | None = None) -> Any:
        """The outputs for the inputs; `watch` is filled with every value, and with the ways that Ifs took."""
        values = dict(zip((g.name for g in self.spec.inputs), given))
        self._run(self.spec.steps, values, watch)
        found = [self._operand(result, values) for result in self.spec.results]
        tensors = tuple(v if isinstance(v, Tensor) else _tensor(v) for v in found)
        return tensors[0] if len(tensors) == 1 else tensors

    def _run(self, steps: Sequence[Step], values: dict[str, Any], watch: dict[str, Any] | None) -> None:
        for step in steps:
            operands = [self._operand(operand, values) for operand in step.operands]
            if step.op == "If":
                found = self._branch(step, operands[0], values, watch)
            else:
                found = self._compute(step, operands)
            for name, value in zip(step.outputs, found):
                if name:
                    values[name] = value
            if watch is None:
                for name in step.last:
                    values.pop(name, None)
            else:
                watch.update({name: value for name, value in zip(step.outputs, found) if name})

    def _compute(self, step: Step, operands: list[Any]) -> tuple[Any, ...]:
        try:
            return compute(step, operands, self.precision, self.get_submodule(step.module) if step.module else None)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
            if type(error).__module__.partition(".")[0] not in ("builtins", "torch"):
                raise
            error.add_note(f"in {step.title}, a step of the file")
            raise

    def _branch(self, step: Step, condition: Any, values: dict[str, Any], watch: dict[str, Any] | None) -> list[Any]:
        if isinstance(condition, Tensor):
            raise ValueError(
                f"from_onnx: {step.title} branches on the numbers of an input. Fix the input that it depends on: "
                "from_onnx(path, inputs={name: value})."
            )
        way = "then_branch" if bool(np.all(condition)) else "else_branch"
        branch = step.attributes[way]
        if branch is None:
            raise ValueError(f"{step.title}: inputs of these sizes go another way, which was not read.")
        if watch is not None:
            watch.setdefault(TAKEN, set()).add((step.outputs[0], way))
        self._run(branch.steps, values, watch)
        return [self._operand(result, values) for result in branch.results]

    def _operand(self, operand: Operand, values: Mapping[str, Any]) -> Any:
        if isinstance(operand, Value):
            return values[operand.name]
        return getattr(self, operand.name) if isinstance(operand, Held) else operand

    def explain(self) -> str:
        """Inputs, outputs and steps, a line each; sizes that may change stand as the file names them."""
        lines = [f"{len(self.spec.steps)} steps, {sum(p.numel() for p in self.parameters())} parameters"]
        for given in self.spec.inputs:
            sizes = "any shape" if given.shape is None else ", ".join("?" if s is None else str(s) for s in given.shape)
            lines.append(f"input {identifier(given.name)}: ({sizes})")
        return "\n".join([*lines, *_described(self, self.spec.steps, ""), f"outputs {', '.join(self.spec.outputs)}"])

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made for the names of the inputs: copies and pickles make it anew.
        return _empty, (tuple(given.name for given in self.spec.inputs),), self.__dict__.copy()


def _described(model: nn.Module, steps: Sequence[Step], indent: str) -> list[str]:
    lines = []
    for step in steps:
        what = f"{step.module}: {model.get_submodule(step.module)}" if step.module else step.op
        read = [o.name for o in step.operands if isinstance(o, (Value, Held))]
        made = [name for name in step.outputs if name]
        lines.append(f"{indent}{what} <- {', '.join(read)} -> {', '.join(made)}")
        for branch in step.branches():
            lines += _described(model, branch.steps, indent + "  ")
    return lines


@functools.cache
def class_for(names: tuple[str, ...]) -> type[OnnxModule]:
    """A class whose forward has the arguments `names`, so that they can be given and found by name."""
    arguments = _arguments(names)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    signature = inspect.Signature([own, *(inspect.Parameter(name, kind) for name in arguments)])

    def forward(self: OnnxModule, *args: Any, **kwargs: Any) -> Any:
        given = args if len(args) == len(arguments) and not kwargs else ()
        return self.run(given or list(signature.bind(self, *args, **kwargs).arguments.values())[1:])

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return type("OnnxModule", (OnnxModule,), {"forward": forward, "__doc__": OnnxModule.__doc__})


def _arguments(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in map(identifier, names):
        own, n = name, 2
        while own in (*found, "self"):
            own, n = f"{name}_{n}", n + 1
        found.append(own)
    return found


def _empty(names: tuple[str, ...]) -> OnnxModule:
    kind = class_for(names)
    return kind.__new__(kind)


def _tensor(value: Any) -> Tensor:
    """An output that is made of sizes, or a constant."""
    sizes = isinstance(value, np.ndarray) and value.dtype.kind == "O"
    return torch.as_tensor(value.astype(np.int64) if sizes else value)


def pruned(model: OnnxModule, taken: set[tuple[str, str]]) -> None:
    """Forget the branches that no run took, and the layers that only they had."""

    def without(step: Step) -> Step:
        ways: dict[str, Any] = {}
        for way, branch in step.attributes.items():
            kept = isinstance(branch, Branch) and (step.outputs[0], way) in taken
            ways[way] = Branch(tuple(map(without, branch.steps)), branch.results) if kept else None
        return step if step.op != "If" else Step(**{**vars(step), "attributes": ways})

    spec = model.spec
    model.spec = Spec(spec.inputs, tuple(map(without, spec.steps)), spec.outputs, spec.results)
    steps = everything(model.spec.steps)
    used = {step.module for step in steps} | {o.name for step in steps for o in step.operands if isinstance(o, Held)}
    used |= {result.name for result in spec.results if isinstance(result, Held)}
    for name in [*model._modules, *model._parameters, *model._buffers]:
        if name not in used and name != "precision":
            delattr(model, name)
