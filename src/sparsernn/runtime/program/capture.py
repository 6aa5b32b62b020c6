"""What a model computes, as a list of torch's operations: one run of a copy under `make_fx`, nothing left out.

Captured before autograd (`pre_dispatch`), so that an LSTM, a convolution or a norm is one call each, with the very
tensors of the model as its weights.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.fx.node import map_arg
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map

_TORCH = os.path.dirname(torch.__file__)
_PACKAGES = os.path.dirname(_TORCH)
_LINE = "sparsernn_line"


# Operations that torch makes of others, which have rules where these have none.
_COMPOSED = ("diff", "outer", "inner", "tensordot")


def _in_parts() -> dict[Any, Callable[..., Any]]:
    packets = [getattr(torch.ops.aten, name) for name in _COMPOSED]
    found = [getattr(packet, name) for packet in packets for name in packet.overloads() if "out" not in name]
    return {op: op.decompose for op in found if op._can_decompose()}


class NotAProgram(RuntimeError):
    """The model does something that one time step can't do; the message says what, where, and what helps."""


@dataclass
class Call:
    """One operation of a run. args: what torch was given, by the names of its schema; `Ref` for other calls' results.

    result: the tensor or tuple of tensors that it gave in this run. source: "net.py:14" of the model's code.
    """

    target: torch._ops.OpOverload
    args: dict[str, Any]
    result: Any
    source: str

    @property
    def name(self) -> str:
        """ "aten.add", without the overload."""
        return f"{self.target.namespace}.{self.target._schema.name.split('::')[1]}"


@dataclass(frozen=True)
class Ref:
    """The result of call `call`, its part `part` where it gives several; the input of number `call` where `input`."""

    call: int
    part: int | None = None
    input: bool = False


@dataclass
class Capture:
    """One run of a model. `outputs`: the leaves of what it gave, and their structure; `changed`: the tensors that it
    left in attributes, by path; `names` and `before`: by the id of a tensor of the model, its path and its value."""

    model: nn.Module
    calls: list[Call]
    inputs: list[Tensor]
    outputs: list[Any]
    structure: TreeSpec
    changed: dict[str, Any]
    names: dict[int, str]
    before: dict[int, Tensor]


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def capture(model: nn.Module, leaves: Sequence[Tensor], arguments: Callable[[Sequence[Any]], Arguments]) -> Capture:
    """Run `model(*args, **kwargs)` on arguments(leaves) and note every operation. The model itself is used up by the
    run, which may change its buffers and attributes: give a copy."""
    kept = kept_tensors(model)
    names = {id(value): path for path, value in [*kept.items(), *model.named_parameters()]}
    before = {id(value): value.clone() for value in kept.values()}
    paths: list[str] = []
    spec: list[TreeSpec] = []

    def whole(*inputs: Any) -> Any:
        _note_lines()
        args, kwargs = arguments(inputs)
        flat, structure = tree_flatten(model(*args, **kwargs))
        others = {path: value for path, value in kept_tensors(model).items() if value is not kept.get(path)}
        paths[:], spec[:] = others, [structure]
        return flat, list(others.values())

    fake = TracingContext(FakeTensorMode(allow_fallback_kernels=True))  # one for all; else each value makes its own
    with warnings.catch_warnings(), torch.no_grad(), tracing(fake):
        warnings.simplefilter("ignore")
        try:
            graph = make_fx(whole, _in_parts(), tracing_mode="real", pre_dispatch=True)(*leaves)
        except RuntimeError as error:
            if "tracing tensor" not in str(error):
                raise
            if any(f.filename.endswith("rnn.py") for f in traceback.extract_tb(error.__traceback__)):
                raise NotAProgram(
                    f"it packs its sequences{where(error)}, whose rows end at different steps: a stream has one step "
                    "of each row, so give it a forward without packing."
                ) from None
            raise NotAProgram(
                f"forward reads a tensor's value into Python{where(error)}, as one that branches on a tensor's value "
                "does: use torch.where, or stream the parts."
            ) from None
        for value in kept.values():
            value.copy_(before[id(value)])
        calls, outputs, changed = _calls(graph, leaves)
    return Capture(model, calls, list(leaves), outputs, spec[0], dict(zip(paths, changed)), names, before)


def _calls(graph: fx.GraphModule, leaves: Sequence[Tensor]) -> tuple[list[Call], list[Any], list[Any]]:
    """The graph's calls with the results of one run of it, and what it gives."""
    values: dict[fx.Node, Any] = {}
    refs: dict[fx.Node, Any] = {}
    calls: list[Call] = []
    inputs = iter(range(len(leaves)))
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            number = next(inputs)
            refs[node], values[node] = Ref(number, input=True), leaves[number].clone()
        elif node.op == "get_attr":
            refs[node] = values[node] = _attribute(graph, node.target)
        elif node.op == "output":
            flat, changed = tree_map(lambda v: refs[v] if isinstance(v, fx.Node) else v, node.args[0])
            return calls, list(flat), list(changed)
        elif getattr(node.target, "__name__", "") == "getitem":
            source, part = node.args
            refs[node], values[node] = Ref(refs[source].call, part), values[source][part]
        elif not isinstance(node.target, torch._ops.OpOverload):
            _switched(node)
            refs[node] = values[node] = None
        else:
            args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
            result = values[node] = node.target(*args, **kwargs)
            args, kwargs = map_arg((node.args, node.kwargs), refs.__getitem__)
            refs[node] = Ref(len(calls))
            calls.append(Call(node.target, _by_name(node.target, args, kwargs), _snapshot(result), _line(node)))
    raise AssertionError("a graph ends with its output")


def _switched(node: fx.Node) -> None:
    """Calls that are no operations: switching gradients off and on changes nothing, all else does."""
    name = getattr(node.target, "__name__", str(node.target))
    if name == "_set_grad_enabled":
        return
    if isinstance(node.target, type):
        raise NotAProgram(
            f"its output is of class {name}: return tensors, tuples, named tuples or dicts, or make the class known by "
            f"torch.export.register_dataclass({name})."
        )
    where = f" ({line})" if (line := _line(node)) else ""
    if "autocast" in name:
        raise NotAProgram(f"forward switches autocast on{where}: a step computes in float32, without it.")
    raise NotAProgram(f"{name}{where} is not among the operations that a step program has.")


def _by_name(target: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """All arguments of the operation's schema, those not given with their defaults."""
    declared = target._schema.arguments
    given = dict(kwargs)
    given |= {a.name: value for a, value in zip((a for a in declared if not a.kwarg_only), args)}
    return {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in declared}


def _snapshot(result: Any) -> Any:
    """The result's values at this moment: later operations may change them in place."""
    return tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, result)


def _attribute(graph: fx.GraphModule, target: Any) -> Any:
    value: Any = graph
    for part in str(target).split("."):
        value = getattr(value, part)
    return value


def kept_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Buffers and tensors in plain attributes (also in lists, tuples and dicts), by path; no parameters."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        for name, value in [*module._buffers.items(), *vars(module).items()]:
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            for end, tensor in _tensors(value):
                found[f"{path}.{name}{end}".removeprefix(".")] = tensor
    return found


def _tensors(value: Any, end: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        yield end, value
    elif isinstance(value, (list, tuple)) and depth < 4:
        for n, item in enumerate(value):
            yield from _tensors(item, f"{end}.{n}", depth + 1)
    elif isinstance(value, dict) and depth < 4:
        for key, item in value.items():
            yield from _tensors(item, f"{end}.{key}", depth + 1)


def where(error: BaseException) -> str:
    """The last line of the traceback that is neither torch's nor of this file, as " (net.py:14)"."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((_TORCH, __file__))]
    return f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""


def _line(node: fx.Node) -> str:
    """The line of the model's code that made the node, as "net.py:14"."""
    return node.meta.get(_LINE, "")


def _note_lines() -> None:
    """From here on each node of the graph that is being traced has the line that made it."""
    tracer: Any = get_proxy_mode().tracer  # type: ignore[union-attr]
    make = tracer.create_node

    def create_node(*args: Any, **kwargs: Any) -> fx.Node:
        node = make(*args, **kwargs)
        node.meta[_LINE] = _innermost(sys._getframe(1))
        return node

    tracer.create_node = create_node


def _innermost(frame: FrameType | None) -> str:
    """The innermost line that is neither torch's nor of this file; of a package that the model uses, the model's."""
    found = ""
    while frame is not None and frame.f_code.co_filename != __file__:
        path = frame.f_code.co_filename
        if not path.startswith(_TORCH):
            found = found or f"{os.path.basename(path)}:{frame.f_lineno}"
            if not path.startswith(_PACKAGES):
                return f"{os.path.basename(path)}:{frame.f_lineno}"
        frame = frame.f_back
    return found
