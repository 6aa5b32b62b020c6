"""Opening a stream: the model's chain is found by a run that nobody else sees, and judged by that run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .agreement import accelerated, twin, verify
from .modules import Accelerated
from .precision import precisions
from .recording import NotAChain, record
from .stream import Stream, input_size

_STEPS = 5  # of an input that is made up


def make_stream(model: nn.Module, batch: int, example: Any = None) -> Stream:
    """The stream of an accelerated model; RuntimeError where the model is not a chain that can run step by step."""
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise ValueError(f"stream: batch is {batch!r}, expected a whole number from 1 on.")
    try:
        # Hooks watch the run, so it is that of a copy: other threads may call the model meanwhile.
        own, exact = twin(model), None
        if "int8" in precisions(own).values():
            exact = twin(model, "float32")
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise RuntimeError(f"stream: {type(model).__name__} can't be copied: {_first_line(error)}") from error
    if example is None:
        return _of_any(own, exact, batch, _examples(own, batch))
    x = _one_tensor(example)
    rows = 0 if _batch_first(own) else 1
    # As many rows as the stream has; a chain does not mix them.
    x = x.index_select(rows, torch.arange(batch, dtype=torch.int64, device="cpu") % x.shape[rows])
    try:
        return _of(own, exact, batch, x)
    except NotAChain as error:
        raise _refused(own, str(error)) from error
    except _FAILURES as error:
        raise _refused(own, f"it fails on the example, {_named(x)}: {_first_line(error)}") from error


_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, AttributeError)


def _of_any(own: nn.Module, exact: nn.Module | None, batch: int, examples: list[Tensor]) -> Stream:
    """The stream by the first input that the model takes."""
    why: str | None = None
    for x in examples:
        try:
            return _of(own, exact, batch, x)
        except NotAChain as error:
            raise _refused(own, str(error)) from error
        except _FAILURES as error:
            # The likeliest input's failure is the one to tell.
            why = why or f"it fails on an input made up for it, {_named(x)}: {_first_line(error)}"
    raise _refused(own, why or "no input could be made up for it", "Pass `example=`, an input that the model takes.")


def _of(own: nn.Module, exact: nn.Module | None, batch: int, x: Tensor) -> Stream:
    parts, whole = record(own, x)
    if not any(isinstance(part, Accelerated) and not isinstance(part, nn.Linear) for _, part in parts):
        raise NotAChain("it has no recurrent layer in its chain")
    judged = stream = Stream(parts, batch)
    if exact is not None:
        parts, whole = record(exact, x)
        judged = Stream(parts, batch)
    verify(judged, x, whole, 1 if _batch_first(own) else 0)
    stream.reset()
    return stream


def _refused(model: nn.Module, why: str, cure: str = "") -> RuntimeError:
    return RuntimeError(
        f"stream: {type(model).__name__} can't run step by step: {why.rstrip('.')}.\n"
        "A stream takes a chain of Embedding, Linear, elementwise and one-directional recurrent layers."
        + (f"\n{cure}" if cure else "")
    )


def _one_tensor(example: Any) -> Tensor:
    x = example[0] if isinstance(example, (tuple, list)) and len(example) == 1 else example
    if not isinstance(x, Tensor):
        raise TypeError(
            f"stream: example is a {type(x).__name__}, expected the one tensor that the model takes: "
            "(batch, time), (time, batch) or the same with features behind."
        )
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
