"""The model run beside onnxruntime, and the first node where the two differ."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..extras import require
from .folding import first_line
from .graph import refuse
from .inputs import drawn, sizes_to_try
from .model import TAKEN, OnnxModule, pruned

SAME = 1e-5  # of the largest number of an output, and of 1
RUNS = 2


def check(model: OnnxModule, content: bytes, fixed: dict[str, np.ndarray], name: str) -> None:
    """Run `model` and onnxruntime at two sets of sizes, and forget the branches that neither took.

    ValueError where they differ; a warning where there was nothing to compare with."""
    session, why = _session(content)
    watched: set[tuple[str, str]] = set()
    done: list[dict[str, int]] = []
    for number, (_, sizes) in enumerate(sizes_to_try(model.spec.inputs)):
        if len(done) == RUNS or (done and not sizes) or sizes in done:
            continue
        given = drawn(model.spec.inputs, sizes, number, model)
        if given is None:
            continue
        want, said = _theirs(session, model, given, fixed)
        if session is not None and want is None:
            why = why or said
            continue
        ours = _ours(model, given, watched, must=session is not None)
        if ours is None:
            continue
        done.append(sizes)
        if want is not None:
            _compare(model, given, ours, want, content, fixed)
    if not done or session is None:
        warnings.warn(
            f"from_onnx: {name} was not checked: {why or 'it ran at none of the sizes that were tried'}.",
            stacklevel=3,
        )
    if done:
        pruned(model, watched)


def _session(content: bytes) -> tuple[Any, str]:
    try:
        ort = require("onnxruntime", "the check of from_onnx")
    except ImportError as error:
        return None, str(error)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]), ""
    except Exception as error:  # of onnxruntime's own classes
        return None, f"onnxruntime does not open it ({first_line(error)})"


def _theirs(session: Any, model: OnnxModule, given: list[Tensor], fixed: dict[str, np.ndarray]) -> tuple[Any, str]:
    if session is None:
        return None, ""
    feed = {g.name: value.numpy() for g, value in zip(model.spec.inputs, given)} | fixed
    try:
        return session.run(None, feed), ""
    except Exception as error:  # of onnxruntime's own classes
        return None, f"onnxruntime does not run it ({first_line(error)})"


def _ours(model: OnnxModule, given: list[Tensor], watched: set[tuple[str, str]], must: bool) -> list[Tensor] | None:
    watch: dict[str, Any] = {}
    try:
        with torch.no_grad():
            found = model.run(given, watch)
    except Exception as error:  # whatever an operator raises
        if must or "branches on" in str(error):
            raise refuse("the model", f"does not run where onnxruntime does: {_told(error)}") from error
        return None
    watched |= watch.get(TAKEN, set())
    return list(found) if isinstance(found, tuple) else [found]


def _told(error: BaseException) -> str:
    return "; ".join([first_line(error), *getattr(error, "__notes__", [])])


def _compare(
    model: OnnxModule, given: list[Tensor], ours: list[Tensor], want: list[Any], content: bytes, fixed: dict[str, Any]
) -> None:
    wrong = next((n for n, pair in enumerate(zip(ours, want)) if not same(*pair)), None)
    if wrong is None and len(ours) == len(want):
        return
    doubled = copy.deepcopy(model).double()
    with torch.no_grad():
        exact = doubled.run([v.double() if v.is_floating_point() else v for v in given])
    exact = list(exact) if isinstance(exact, tuple) else [exact]
    # A file that itself is as far from exact arithmetic as that can't be followed more closely.
    if all(same(a, b, 4 * _apart(a, e)) for a, b, e in zip(ours, want, exact)):
        return
    output = model.spec.outputs[wrong or 0]
    apart = _apart(ours[wrong or 0], torch.as_tensor(want[wrong or 0]))
    where = _first_difference(model, given, content, fixed)
    raise refuse(f"{output[:80]}", f"differs from onnxruntime's by {apart:.2g}; {where}. Please report this file.")


def same(ours: Tensor, want: Any, slack: float = 0.0) -> bool:
    theirs = torch.as_tensor(np.asarray(want))
    if ours.shape != theirs.shape:
        return False
    if not theirs.is_floating_point():
        return torch.equal(ours.to(theirs.dtype), theirs)
    a, b = ours.double(), theirs.double()
    if not torch.equal(a.isnan(), b.isnan()):
        return False
    scale = b[b.isfinite()].abs().max().item() if bool(b.isfinite().any()) else 0.0
    limit = max(SAME * max(1.0, scale), slack)
    return bool(((a - b).abs().nan_to_num(0.0) <= limit).all() and torch.equal(a.isinf(), b.isinf()))


def _apart(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    difference = (a.double() - b.double()).abs()
    return difference[difference.isfinite()].max().item() if bool(difference.isfinite().any()) else 0.0


def _first_difference(model: OnnxModule, given: list[Tensor], content: bytes, fixed: dict[str, Any]) -> str:
    """Both run with every value between as an output."""
    onnx = require("onnx", "from_onnx")
    watch: dict[str, Any] = {}
    with torch.no_grad():
        model.run(given, watch)
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    there = {name for node in proto.graph.node for name in node.output}
    names = [name for name, value in watch.items() if name in there and isinstance(value, Tensor)]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session, why = _session(proto.SerializeToString())
    values, said = _theirs(session, model, given, fixed)
    if values is None:
        return f"the node could not be found ({why or said})"
    for name, value in zip(names, values):
        if not same(watch[name], value):
            maker = next((s.title for s in model.spec.steps if name in s.outputs), name)
            return f"the first node that differs is {maker}"
    return "no single node differs"
