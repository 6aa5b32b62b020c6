"""Save a compacted model and load it into a freshly built dense one, without ever running what a file says.

The file is safetensors; a JSON text in its metadata holds the format version, the sizes of every module whose class
is in a fixed table, shape and dtype of every parameter and buffer, which of them are shared, and what surgery
attached to modules. `load` compares all of that with the dense model before it makes anything. Format 2 adds matrices
in few bytes and which modules ran on kernels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .._modules import copied, is_stored, places, unwrap
from .._version import __version__
from ..structure.held_weights import HeldWeight
from ._coded import form_of, in_few_bytes, parts_of
from ._container import FORMAT, NAMES, Fault, open_container, read_header, write_container
from ._kernels import OnKernels, check_recorded, checked, recorded, say
from ._loading import Loader
from ._reasons import noted
from ._records import describe
from ._slots import refuse_what_is_elsewhere, slots
from .attachments import attachment_of, attachments

_HINT = " It was written by an accelerated model: save the one before accelerate."
_LAZY = "is of a lazy module and has no size yet; run the model once first."


class CheckpointError(ValueError):
    """A saved model that is damaged, foreign, too new, or of another architecture. Names file and field."""


def save(model: nn.Module, path: str | Path) -> None:
    """Write `model` to `path` (safetensors), atomically: sizes, parameters, buffers and what surgery attached.

    Tensors that the user's own modules keep as plain attributes (also in lists, tuples and dicts) are written as well;
    a state of the last call is one of them. Tensors shared by several places are stored once and stay shared.

    Of an accelerated model the file holds the weights as the kernels have them: int8 numbers and scales, bfloat16,
    sparse ones without their zeros, in an order that is no processor's own. Matrices of other models that lie on a grid
    (`fold(..., bits=8)`, `bits=4`) are kept as numbers and scales that give them to the bit, zeros without a sign.
    Raises TypeError, with the name, for
    what such a file can't hold: other tensor types, packed weights of quantised modules, state of torch.jit, extra
    state, attachments of an unknown class.
    """
    model = unwrap(model)
    if any(map(is_stored, model.modules())):
        model = copied(model)
    refuse_what_is_elsewhere(model)
    owners: dict[int, str] = {}
    values: dict[str, Tensor] = {}
    tensors: dict[str, dict[str, Any]] = {}
    ties: dict[str, str] = {}
    found = list(slots(model))
    few = in_few_bytes(found)
    for slot in found:
        owner = owners.setdefault(id(slot.tensor), slot.name)
        if owner != slot.name:
            ties[slot.name] = owner
            continue
        matrix = few.get(id(slot.tensor))
        values |= parts_of(slot.name, matrix[0]) if matrix else {slot.name: _plain(slot.name, slot.tensor)}
        dtype = str(slot.tensor.dtype).removeprefix("torch.")
        tensors[slot.name] = {"shape": list(slot.tensor.shape), "dtype": dtype, "role": slot.role}
        tensors[slot.name] |= noted(slot.module, slot.local) | (form_of(*matrix) if matrix else {})
    modules: dict[str, Any] = {}
    attached: dict[str, list[dict[str, Any]]] = {}
    for place, module in places(model):
        record = describe(module)
        if record is not None:
            modules[place] = record
        for item in attachments(module):
            if attachment_of(item.tag) is not type(item):
                raise TypeError(f"{place}: {type(item).__name__} is no registered attachment; see register_attachment.")
            data = _without_tensors(item.to_json(), values)
            attached.setdefault(place, []).append({"tag": item.tag, "data": data})

    kernels = recorded(model)
    header = {
        "format": FORMAT if few or kernels else 1,
        "sparsernn": __version__,
        "model": type(model).__name__,
        "modules": modules,
        "tensors": tensors,
        "ties": ties,
        "attached": attached,
    }
    write_container(Path(path), header | ({"accelerated": kernels} if kernels else {}), values)


def load(model: nn.Module, path: str | Path, on_kernels: OnKernels | None = None) -> nn.Module:
    """A new model of the class of `model` with the modules, sizes and weights saved in `path`.

    `model` is freshly built and dense, as it was before surgery; it stays as it is, and so does a wrapper round it
    (DataParallel, `torch.compile`), which the result does not have. The result has its devices,
    `requires_grad`, training mode and everything that `save` does not hold, and the dtypes of the file. What an
    accelerated model wrote is handed to `on_kernels`; without that the result is a plain one of the kernels' weights.

    Raises:
        ValueError: for a lazy module that has not run yet.
        FileNotFoundError, CheckpointError: the latter names the field that is wrong.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"load: got {type(model).__name__}, expected a freshly built torch.nn.Module.")
    model = unwrap(model)
    if any(attachments(module) for _, module in places(model)):
        raise ValueError(
            "load: the model has been compacted already; give one that is freshly built: load(MyModel(), path)."
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"load: {name} {_LAZY}")
    path, hint = Path(path), ""
    if not path.is_file():
        what = "no regular file" if path.exists() else "no such file"
        raise FileNotFoundError(f"{path}: {what}; save(model, path) writes one.")
    try:
        with open_container(path) as file:
            header = read_header(file)
            precisions = checked(header.get("precision", {})) if header["format"] == 1 else {}
            kernels = header.get("accelerated") if header["format"] > 1 else None
            hint = _HINT if precisions or kernels is not None else ""
            if kernels is not None:
                check_recorded(kernels, dict(places(model)))
            loader = Loader(model, header, file, set(kernels["layers"]) if kernels and on_kernels else set())
            small = loader.build()
    except Fault as fault:
        raise CheckpointError(f"{path}: {fault}{hint}") from None
    say(precisions, level=2)
    if kernels is None or on_kernels is None:
        return small
    try:
        return on_kernels(small, kernels["layers"], loader.held, kernels["precision"])
    except ValueError as error:
        raise CheckpointError(f"{path}: accelerated.layers: {error}") from None


def _plain(name: str, tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        raise TypeError(f"{name} {_LAZY}")
    tensor = tensor.held.dense() if isinstance(tensor, HeldWeight) else tensor
    # Subclasses that take over torch's dispatch keep their values elsewhere (quantised, distributed, fake tensors).
    kind: Any = type(tensor)
    elsewhere = kind.__torch_dispatch__ is not cast(Any, Tensor).__torch_dispatch__
    odd = elsewhere or tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta
    if odd or tensor.dtype not in NAMES.values():
        name_of = "" if kind in (Tensor, nn.Parameter) else f"{kind.__name__}, "
        what = f"{name_of}{tensor.dtype}, {tensor.layout}, {tensor.device}"
        raise TypeError(f"{name} is a tensor ({what}), which can't be saved; only plain ones in memory can.")
    plain = tensor.detach().as_subclass(Tensor)
    return plain.resolve_conj().resolve_neg().to("cpu", copy=True).contiguous()


def _without_tensors(value: Any, values: dict[str, Tensor]) -> Any:
    """`value` with each tensor moved to `values` under a name that no parameter can have."""
    if isinstance(value, Tensor):
        name = f".attached.{len(values)}"
        values[name] = _plain(name, value)
        return {"$tensor": name}
    if isinstance(value, dict):
        return {key: _without_tensors(part, values) for key, part in value.items()}
    return [_without_tensors(part, values) for part in value] if isinstance(value, (list, tuple)) else value
