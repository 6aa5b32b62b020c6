"""Whether surgery is the reason that a file is narrower than the model: else it is of another architecture.

Surgery notes the shape that each tensor had before its first cut, `save` writes it, and `load` expects it of the
model. Files without such notes (of earlier versions, or of models made narrow by hand) are asked for a reader: channels
go only together with what reads them, so a narrower output that nobody reads is another number of classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from ._container import Fault, short
from .torch_modules import leaf_axes

NOTE = "_sparsernn_dense"  # attribute of a module: local name -> shape before the first cut
Shape = tuple[int, ...]


def note(model: nn.Module, tensor: Tensor) -> None:
    """Remember the shape of `tensor` as it is now, on every module whose parameter it is, unless one is known."""
    for module in model.modules():
        for local, own in module._parameters.items():
            if own is tensor:
                module.__dict__.setdefault(NOTE, {}).setdefault(local, list(tensor.shape))


def noted(module: nn.Module, local: str) -> dict[str, Any]:
    """The entry of a parameter's record in a file: {} where it was never cut."""
    shape = vars(module).get(NOTE, {}).get(local)
    return {} if shape is None else {"dense": shape}


def check_notes(name: str, record: Mapping[str, Any], dense: Shape) -> None:
    """The parameter `name` was cut from one of the shape `dense`, or was not cut at all."""
    want = record.get("dense", record["shape"])
    if want != list(dense):
        raise Fault(
            f"tensors.{name}.shape",
            f"the file is of a model that had {short(want)} there before surgery, this one has {list(dense)}: another "
            "architecture.",
        )


def check_readers(modules: Mapping[str, nn.Module], dense: Mapping[str, Shape], small: Mapping[str, Shape]) -> None:
    """Every narrower output of a linear layer, convolution or embedding has a reader that is narrower too.

    `dense`, `small`: shapes of the parameters by all their names, in the model and in the file.
    """
    outputs = {f"{place}.weight" if place else "weight": axis for place, axis in _outputs(modules)}
    read = set(_narrowed_inputs(outputs, dense, small))
    for name, axis in outputs.items():
        if name in small and name in dense:
            wide, narrow = dense[name][axis], small[name][axis]
            if narrow < wide and not any(_reads(wide, narrow, *pair) for pair in read):
                raise Fault(
                    f"tensors.{name}.shape",
                    f"got {list(small[name])}, but the model has {list(dense[name])} and nothing narrower reads it: "
                    "another architecture (other classes?).",
                )


def _outputs(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, int]]:
    for place, module in modules.items():
        axes = leaf_axes(module)
        if axes is not None and axes.output[0] not in {axis for axis, _ in axes.inputs.values()}:
            yield place, axes.output[0]


def _narrowed_inputs(
    outputs: Mapping[str, int], dense: Mapping[str, Shape], small: Mapping[str, Shape]
) -> Iterator[tuple[int, int]]:
    for name in dense.keys() & small.keys():
        if f"{name.removesuffix('bias')}weight" in outputs and name.rpartition(".")[2] == "bias":
            continue
        for axis, (wide, narrow) in enumerate(zip(dense[name], small[name])):
            # Rows of an embedding are words.
            if narrow < wide and outputs.get(name) not in (axis, 1 if axis == 0 else axis):
                yield wide, narrow


def _reads(wide: int, narrow: int, reader: int, left: int) -> bool:
    """Whether a reader that went from `reader` to `left` may read channels that went from `wide` to `narrow`: them and
    others beside them, or each of them several times (flattened over time or space)."""
    if reader * narrow == left * wide:
        return True
    times, odd = divmod(reader - left, wide - narrow)
    return odd == 0 and reader >= times * wide and left >= times * narrow
