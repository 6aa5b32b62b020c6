"""A model as a function from tensors to tensors, run from a fresh state each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..._modules import copied
from .nest import Call, call_nest, nest


class Flat(nn.Module):
    """The model as a function of the tensors of a call, in their order; it gives the tensors of the result in theirs.

    `names` and `examples` are those of the call. With `own` the inputs are copied first, for a model that changes them.
    """

    own = False
    given: tuple[Any, ...] = ()

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.call = call_nest(model, call)
        tensors = self.call.tensors()
        self.names = [leaf.name for leaf in tensors]
        self.examples = [leaf.value.detach().cpu().clone() for leaf in tensors]
        self.training = False  # else the exporter sets everything back to training

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        args, kwargs = self.call.filled(iter([value.clone() for value in inputs] if self.own else inputs))
        self.given = (*args, *kwargs.values())
        return tuple(outputs(self.model(*args, **kwargs)))

    def fresh(self) -> Flat:
        """A copy as it was before any call. Only weights are shared; a frozen parameter may hold a state."""
        weights = (one for one in self.parameters() if one.requires_grad)
        return cast(Flat, copied(self, {id(one): one for one in (*weights, self.call, self.examples)}))

    def run(self, values: Sequence[Tensor], seed: int = 0) -> tuple[Tensor, ...]:
        """The outputs for such inputs from a fresh state."""
        torch.manual_seed(seed)
        return self.fresh()(*(value.clone() for value in values))

    def changed(self) -> tuple[list[str], list[str]]:
        """The arguments that a call changes in place, and those into which it puts tensors."""
        twin, values = self.fresh(), [value.clone() for value in self.examples]
        before = [value._version for value in values]
        twin(*values)
        changed = [name for name, value, version in zip(self.names, values, before) if value._version != version]
        parts = self.call.parts or []
        more = [len(nest("", value).tensors()) > len(part.tensors()) for part, value in zip(parts, twin.given)]
        return changed, [part.name for part, grown in zip(parts, more) if grown]

    def attempt(self, values: Sequence[Tensor]) -> tuple[Tensor, ...] | Exception:
        """The outputs, or the error of a model that can't run on such inputs."""
        try:
            return self.run(values)
        except Exception as error:
            return error


def outputs(result: Any) -> list[Tensor]:
    """The tensors of a result, in order. ValueError for what ONNX has no form for."""
    leaves = list(nest("output", result).leaves())
    if isinstance(result, PackedSequence) or any(isinstance(leaf.value, PackedSequence) for leaf in leaves):
        raise ValueError("export_onnx: the model returns a PackedSequence; ONNX has tensors only. Pad it first.")
    tensors = [leaf.value for leaf in leaves if isinstance(leaf.value, Tensor)]
    if not tensors:
        raise ValueError(
            f"export_onnx: the model returns {type(result).__name__} without a tensor; ONNX has tensors only.\n"
            "Return what is computed as tensors: alone, in lists, tuples and dicts, or as attributes of an object."
        )
    return tensors
