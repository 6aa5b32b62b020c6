"""Export to ONNX with one node for each recurrent layer, batch and time dynamic, checked before it returns."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_flatten, tree_unflatten

from .._extras import require
from .._files import write_atomically
from .._modules import unwrap
from ..structure.cells import cell_of
from ..structure.examples import calls, fresh, run, tensors_in
from ._onnx_axes import Axis, free_axes, grown, varied
from ._onnx_stack import STACKS, NumbersScattered, as_nodes

OPSET = 17
FIXED = (
    "Python loops over time or batch, len(x) and nn.MultiheadAttention come out with the sizes of the example.\n"
    "Put nn.LSTM, nn.GRU or nn.RNN in the place of a loop of cells, x.shape[0] in that of len(x), and "
    "scaled_dot_product_attention between Linear layers in that of nn.MultiheadAttention."
)
TOLERANCE = 1e-4  # float32, of the output's largest value


class _Flat(nn.Module):
    """The model as a function from tensors to tensors, in the order in which they stand in arguments and results."""

    def __init__(self, model: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        super().__init__()
        self.model = model
        leaves, self.spec = tree_flatten(call)
        self.leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.examples = [leaves[n] for n in self.places]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self.leaves)
        for place, value in zip(self.places, inputs):
            leaves[place] = value
        args, kwargs = tree_unflatten(leaves, self.spec)
        result = self.model(*args, **kwargs)
        parts = result if type(result) in (tuple, list) else (result,)
        if any(isinstance(part, PackedSequence) for part in parts):
            raise ValueError("export_onnx: the model returns a PackedSequence; ONNX has tensors only. Pad it first.")
        return tuple(tensors_in(result))


def export_onnx(model: nn.Module, path: str | Path, example_inputs: Any) -> None:
    """Write `model` to `path` as ONNX, in eval mode, with every axis that may change (batch, time) dynamic.

    LSTM, GRU and RNN layers, ragged and gated ones too, become single nodes; a layer whose directions differ in width
    becomes a forward and a reverse node. Before the file is written onnxruntime runs it on the example and on other
    batch sizes and lengths: outputs within 1e-4 of torch's, relative to the largest. Inputs are named after the
    arguments of `forward`, outputs `output`, `output_1`, ... Of several examples the first is exported.

    Raises ValueError where the model can't be exported or onnxruntime gives something else, ImportError without the
    extra `onnx`.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require(name, "ONNX export")
    model = unwrap(model)
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first.")
    _refuse_other_precision(model)
    call = fresh(calls(example_inputs)[0])
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        plain = copy.deepcopy(model).cpu()
        for module in plain.modules():  # not eval(), which users redefine
            module.training = False
        run(plain, fresh(call))
        flat = _Flat(plain, _to_cpu(call))
        flat.training = False  # else the exporter sets everything back to training
        if any(isinstance(leaf, PackedSequence) for leaf in (*call[0], *call[1].values())):
            raise ValueError(
                "export_onnx: an example holds a PackedSequence; ONNX inputs are tensors.\n"
                "Export a module that takes the padded tensor and the lengths, and packs them itself."
            )
        before = flat(*flat.examples)

        def changes(values: Sequence[Tensor]) -> bool | None:
            after = _result(flat, values)
            return None if after is None else not all(map(_alike, before, after))

        sets = free_axes(flat.examples, changes)
        names = _input_names(model, call)
        labels = _labels(flat, sets)
        content = _exported(flat, sets, labels, names)
        _verify(content, flat, sets, labels, names)
    write_atomically(path, content)


def _exported(flat: _Flat, sets: Sequence[Sequence[Axis]], labels: Sequence[str], names: Sequence[str]) -> bytes:
    """The ONNX file by the TorchScript exporter, which is the one that knows packed sequences."""
    # No axis of size 1 while tracing: it would pass for one that broadcasts.
    inputs = grown(flat.examples, sets, *range(1, len(sets) + 1))
    axes: dict[str, dict[int, str]] = {}
    for label, chosen in zip(labels, sets):
        for n, axis in chosen:
            axes.setdefault(names[n], {})[axis] = label
    before, after = flat(*inputs), [flat(*grown(inputs, [chosen], 1)) for chosen in sets]
    outputs = ["output" if n == 0 else f"output_{n}" for n in range(len(before))]
    for n, name in enumerate(outputs):
        for label, result in zip(labels, after):
            for axis, (a, b) in enumerate(zip(before[n].shape, result[n].shape)):
                if a != b:
                    axes.setdefault(name, {})[axis] = label
    stream = io.BytesIO()
    with as_nodes(flat.model, OPSET), _quiet(), NumbersScattered():
        try:
            torch.onnx.export(
                flat,
                tuple(inputs),
                stream,  # pyright: ignore[reportArgumentType]
                dynamo=False,
                input_names=list(names),
                output_names=outputs,
                dynamic_axes=axes,
                opset_version=OPSET,
            )
        except Exception as error:
            raise ValueError(
                f"export_onnx: torch's exporter could not translate {type(flat.model).__name__}: "
                f"{type(error).__name__}: {_line(error)}\n"
                "Write that step with other operations (the error names it), or export the model up to it."
            ) from error
    return stream.getvalue()


def _verify(
    content: bytes, flat: _Flat, sets: Sequence[Sequence[Axis]], labels: Sequence[str], names: Sequence[str]
) -> None:
    """Run onnxruntime and torch on the example and on other sizes of every free axis, alone and together."""
    ort = require("onnxruntime", "ONNX export")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised below
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"export_onnx: onnxruntime refuses the exported model: {_line(error)}") from error
    known = {given.name for given in session.get_inputs()}
    cases = [("the example", [0] * len(sets))]
    cases += [(f"another size of {label}", [2 * (n == m) for m in range(len(sets))]) for n, label in enumerate(labels)]
    cases += [("other sizes of all axes", [3 + n for n in range(len(sets))])] if sets else []
    for seed, (what, more) in enumerate(cases):
        values = grown(flat.examples, sets, *more)
        inputs = varied(values, seed)
        want = _result(flat, inputs)
        if want is None:
            inputs, want = values, flat(*values)
        given = {name: value.numpy() for name, value in zip(names, inputs) if name in known}
        try:
            got = session.run(None, given)
        except Exception as error:
            raise ValueError(f"export_onnx: onnxruntime fails on {what}: {_line(error)}\n{FIXED}") from error
        for n, (a, b) in enumerate(zip(got, want)):
            if tuple(a.shape) != tuple(b.shape):
                raise ValueError(
                    f"export_onnx: on {what} onnxruntime gives output {n} the shape {list(a.shape)}, torch "
                    f"{list(b.shape)}.\n{FIXED}"
                )
            difference = (torch.from_numpy(a).double() - b.double()).abs().max().item() if a.size else 0.0
            if not difference <= TOLERANCE * max(1.0, b.double().abs().max().item() if a.size else 1.0):
                raise ValueError(
                    f"export_onnx: on {what} output {n} of onnxruntime differs from torch's by {difference:.2g}; "
                    "nothing was written."
                )


def _result(flat: _Flat, values: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    """The outputs, or None if the model can't run on `values`."""
    try:
        return flat(*(value.clone() for value in values))
    except Exception:
        return None


def _alike(a: Tensor, b: Tensor) -> bool:
    # The same up to rounding, which another batch size may change.
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-6, equal_nan=True)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _labels(flat: _Flat, sets: Sequence[Sequence[Axis]]) -> list[str]:
    """ "batch" and "time" for the sets of axes that change those of the first recurrent layer; "size_n" for others."""
    first = next((module for module in flat.model.modules() if cell_of(module) or isinstance(module, STACKS)), None)
    seen: list[tuple[int, int]] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        if isinstance(x, PackedSequence):
            seen.append((int(x.batch_sizes[0]), len(x.batch_sizes)))
        elif x.dim() == 3:
            seen.append((x.shape[0], x.shape[1]) if getattr(module, "batch_first", False) else (x.shape[1], x.shape[0]))
        else:  # a cell, or a sequence without a batch
            seen.append((0, x.shape[0]) if hasattr(module, "batch_first") else (x.shape[0], 0))

    sizes: list[tuple[int, int] | None] = []
    handle = first.register_forward_pre_hook(look, with_kwargs=True) if first is not None else None
    for chosen in [[], *sets]:
        seen.clear()
        flat(*grown(flat.examples, [chosen], 1))
        sizes.append(seen[0] if seen else None)
    if handle is not None:
        handle.remove()
    labels: list[str] = []
    for n, size in enumerate(sizes[1:]):
        label = f"size_{n}"
        if size is not None and sizes[0] is not None:
            label = "batch" if size[0] != sizes[0][0] else "time" if size[1] != sizes[0][1] else label
        labels.append(label if label not in labels else f"{label}_{n}")
    return labels


def _input_names(model: nn.Module, call: tuple[tuple[Any, ...], dict[str, Any]]) -> list[str]:
    """A name for each tensor among the arguments, after the parameters of `forward`."""
    names: list[str] = []
    bound = inspect.signature(model.forward).bind(*call[0], **call[1]).arguments
    for name, value in bound.items():
        count = sum(isinstance(leaf, Tensor) for leaf in tree_flatten(value)[0])
        names += [name] if count == 1 else [f"{name}_{n}" for n in range(count)]
    return names


def _to_cpu(call: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    leaves, spec = tree_flatten(call)
    return tree_unflatten([leaf.cpu() if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)


def _refuse_other_precision(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ValueError(
                f"export_onnx: {name} is {parameter.dtype}; onnxruntime runs recurrent layers in float32.\n"
                "Export a copy: export_onnx(copy.deepcopy(model).float(), ...)."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of every Python number it meets; what matters is checked by running the result."""
    logger = logging.getLogger("torch.onnx")
    level, fast = logger.level, torch.backends.mha.get_fastpath_enabled()
    logger.setLevel(logging.ERROR)
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
    try:
        # torch 2.13 prints the whole graph when a translation fails, whatever `verbose` says.
        with warnings.catch_warnings(), patch.object(torch._C, "_jit_onnx_log", lambda *_: None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)
