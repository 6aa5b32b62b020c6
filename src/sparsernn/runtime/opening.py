"""Opening a stream: the model's chain or step program is found by runs that nobody else sees, and judged by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .agreement import accelerated, twin, verify
from .classes import on_torch
from .delta import Found, Wanted, thresholds_of
from .modules import Accelerated
from .precision import precisions
from .program.calls import NotAProgram
from .program.lowering.code import CannotCompile
from .program.make import check_options, make_program
from .program.stream import ProgramStream
from .recording import NotAChain, record
from .stream import Stream, input_size
from .weights import linear_names

_STEPS = 5  # of an input that is made up


def make_stream(
    model: nn.Module,
    batch: int,
    example: Any = None,
    time: int | Mapping[str, int | None] | None = None,
    states: Mapping[str, int | str] | None = None,
    delay: int = 0,
    delta: Wanted | None = None,
) -> Stream | ProgramStream:
    """The stream of an accelerated model: of a chain, or else of its step program; RuntimeError where it has none."""
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise ValueError(f"stream: batch is {batch!r}, expected a whole number from 1 on.")
    check_options("stream", time, states, delay)
    if delta is not None and batch != 1:
        raise ValueError(f"stream: delta goes with batch=1, got {batch}: each row would skip columns of its own.")
    try:
        # Hooks watch the run, so it is that of a copy: other threads may call the model meanwhile.
        own, exact = twin(model), None
        if "int8" in precisions(own).values():
            exact = twin(model, "float32")
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise RuntimeError(f"stream: {type(model).__name__} can't be copied: {_first_line(error)}") from error
    thresholds = None if delta is None else thresholds_of(own, delta)
    failure: str | None = None
    recurrent = not all(linear_names(module) for module in accelerated(own))
    may_be = example is None or (recurrent and isinstance(_single(example), Tensor))
    if time is None and states is None and not delay and may_be:
        found, example, failure = _chain(own, exact, batch, example, thresholds)
        if found is not None:
            return found
        own = twin(model)  # a call may have left a state in the other one
    if delta is not None:
        raise _refused(own, f"delta is for chains of layers, {failure or 'and it is none'}", "Leave delta out.")
    try:
        return _program(own, batch, example, time, states, delay)
    except CannotCompile as error:
        raise _refused(own, f"no kernel runs {error}") from error
    except _FAILURES as error:
        if not isinstance(error, NotAProgram) and str(error).startswith("stream: "):
            raise
        why = str(error) if isinstance(error, NotAProgram) else f"it fails on the example: {_first_line(error)}"
        raise _refused(own, why if failure is None or _is_found(error) else failure) from error


_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError)


def _chain(
    own: nn.Module, exact: nn.Module | None, batch: int, example: Any, thresholds: Found | None
) -> tuple[Stream | None, Any, str | None]:
    """The stream of a chain; where it is none, the input that this was found on and how the model failed on it."""
    if example is not None:
        x = _one_tensor(example)
        try:
            rows = _with_batch(x, batch, 0 if _batch_first(own) else 1)
            return _of(own, exact, batch, rows, thresholds), example, None
        except NotAChain:
            return None, example, None
        except _FAILURES as error:
            return None, example, f"it fails on the example, {_named(x)}: {_first_line(error)}"
    why: str | None = None
    for x in _examples(own, batch):
        try:
            return _of(own, exact, batch, x, thresholds), x, None
        except NotAChain:
            return None, x, None
        except _FAILURES as error:
            # The likeliest input's failure is the one to tell.
            why = why or f"it fails on an input made up for it, {_named(x)}: {_first_line(error)}"
    raise _refused(own, why or "no input could be made up for it", "Pass `example=`, an input that the model takes.")


def _program(
    own: nn.Module, batch: int, example: Any, time: Any, states: Mapping[str, int | str] | None, delay: int
) -> ProgramStream:
    model, of_layers = on_torch(twin(own)), set(precisions(own).values()) or {own.__dict__["_wanted"]}
    first = next((leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)), None)
    if first is None:
        leaf = next(iter(tree_leaves(example)), None)
        name = type(leaf).__name__
        cure = f", or after torch.export.register_dataclass({name})" if is_dataclass(leaf) else ""
        raise TypeError(
            f"stream: example holds {name}, no tensor: give the model's inputs; several in one argument as a tuple, "
            f"a named tuple or a dict{cure}."
        )
    rows = 1 if time == 0 or (time is None and states is None and not _batch_first(own) and _has_stacks(own)) else 0
    size = first.shape[rows] if first.dim() > rows else batch
    forms = [example]
    if size != batch:
        forms = [_of_batch(example, batch, rows, size, other) for other in (False, True)]
        if batch == 1:  # or it has no batch
            forms.insert(0 if first.dim() == 2 and rows == 1 and first.is_floating_point() else 2, example)
    for form in forms:
        try:
            made = make_program(model, form, time, states, delay)
            stateless = not made.program.states and any(axis is not None for axis in made.axes)
            if stateless and time is None and rows == 1:
                # Rows of a batch were taken for steps, since as steps they could not be run one by one.
                made = make_program(model, form, 0, states, delay)
            break
        except _FAILURES as error:
            # Only where the model does not even run may it be that its rows are along another axis.
            if _is_found(error) or form is forms[-1]:
                raise
    # One precision for all: the finest that a layer was given.
    precision = next(p for p in ("float32", "bfloat16", "int8") if p in of_layers or p == "int8")
    return ProgramStream(made, precision, batch)  # type: ignore[arg-type]


def _of_batch(example: Any, batch: int, rows: int, size: int, other: bool) -> Any:
    return tree_map(lambda v: _with_batch(v, batch, rows, size, other) if isinstance(v, Tensor) else v, example)


def _is_found(error: Exception) -> bool:
    """Whether it says what the model does, and not only that it can't be run."""
    return isinstance(error, NotAProgram) and error.__cause__ is None


def _with_batch(x: Tensor, batch: int, rows: int, size: int | None = None, other: bool = False) -> Tensor:
    """As many rows as the stream has, along axis `rows`, or along the one that has `size` of them; other: along the
    second of those, where there are two."""
    if size is not None:
        axes = [a for a in dict.fromkeys((rows, *range(x.dim()))) if a < x.dim() and x.shape[a] == size]
        if not axes:
            return x
        rows = axes[-1 if other else 0]
    return x.index_select(rows, torch.arange(batch, dtype=torch.int64, device="cpu") % x.shape[rows])


def _has_stacks(model: nn.Module) -> bool:
    return any(hasattr(module, "batch_first") for module in accelerated(model))


def _of(own: nn.Module, exact: nn.Module | None, batch: int, x: Tensor, thresholds: Found | None) -> Stream:
    parts, whole = record(own, x, alone=True)
    if not any(isinstance(part, Accelerated) and not linear_names(part) for _, part in parts):
        raise NotAChain("it has no recurrent layer in its chain")
    judged = stream = Stream(parts, batch)
    if exact is not None:
        parts, whole = record(exact, x, alone=True)
        judged = Stream(parts, batch)
    verify(judged, x, whole, 1 if _batch_first(own) else 0)
    stream.reset()
    # Judged without thresholds: with them it is another function.
    return stream if thresholds is None else Stream(parts, batch, thresholds)


def _refused(model: nn.Module, why: str, cure: str = "") -> RuntimeError:
    return RuntimeError(
        f"stream: {type(model).__name__} can't run step by step: {why.rstrip('.')}." + (f"\n{cure}" if cure else "")
    )


def _single(example: Any) -> Any:
    return example[0] if isinstance(example, (tuple, list)) and len(example) == 1 else example


def _one_tensor(example: Any) -> Tensor:
    x = _single(example)
    if x.dim() < 2 or 0 in x.shape or not x.is_cpu:
        raise ValueError(
            f"stream: example is {_named(x)} on {x.device}, "
            "expected a batch of sequences on the CPU, none of them empty."
        )
    return x.detach()


def _named(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _batch_first(model: nn.Module) -> bool:
    return any(getattr(module, "batch_first", False) for module in accelerated(model))


def _examples(model: nn.Module, batch: int) -> list[Tensor]:
    """Inputs that the model may take, likeliest first."""
    shape = (batch, _STEPS) if _batch_first(model) else (_STEPS, batch)
    generator = torch.Generator("cpu").manual_seed(0)
    found = []
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            found.append(
                torch.randint(module.num_embeddings, shape, generator=generator, dtype=torch.int64, device="cpu")
            )
        elif size := input_size(module):
            found.append(torch.randn(*shape, size, generator=generator, dtype=torch.float32, device="cpu"))
    return found
