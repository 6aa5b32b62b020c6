"""The call of torch's exporter: its own translations exchanged where they fix a size, its warnings kept as reasons."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import parametrize

from ..._modules import unparametrize
from .call import Flat
from .reads import Place, only_checks, spelled, users_line
from .rewrites import Rewritten
from .stack import as_nodes

Warned = dict[Place, str]  # line of the model -> what torch's tracer says of it


def translate(
    flat: Flat, inputs: Sequence[Tensor], axes: Mapping[str, dict[int, str]], outputs: Sequence[str], opset: int
) -> tuple[bytes, Warned]:
    """The ONNX file by the TorchScript exporter, which is the one that knows packed sequences."""
    stream, twin = io.BytesIO(), flat.fresh()
    for module in twin.modules():
        if parametrize.is_parametrized(module):
            unparametrize(module)  # their operations need not exist in ONNX
    with as_nodes(twin.model, opset), _exporting() as warned:
        try:
            torch.onnx.export(
                twin,
                tuple(inputs),
                stream,  # pyright: ignore[reportArgumentType]
                dynamo=False,
                input_names=list(flat.names),
                output_names=list(outputs),
                dynamic_axes=axes,
                opset_version=opset,
            )
        except Exception as error:
            newer = re.search(r"added in version (\d+)", str(error))
            raise ValueError(
                f"export_onnx: torch's exporter could not translate {type(flat.model).__name__}: "
                f"{type(error).__name__}: {first_line(error)}\n"
                + (
                    f"Pass opset={newer[1]}, which has that operation."
                    if newer and int(newer[1]) > opset
                    else "Write that step with other operations (the error names it), export the model up to it"
                    + (", or fix the sizes: dynamic=False." if axes else ".")
                )
            ) from error
    return stream.getvalue(), warned


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def reasons(warned: Warned) -> str:
    """The lines of the model that torch's tracer warned of, for a sentence; "" without any."""
    found = [f"{spelled(place)} ({what})" for place, what in warned.items() if not only_checks(place)]
    return "; ".join(found[:3])


def _projected(q: Tensor, k: Tensor, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[Tensor]:
    """Queries, keys and values of nn.MultiheadAttention by three products; torch's way by one fixes their sizes."""
    biases = (None, None, None) if bias is None else bias.chunk(3)
    return [functional.linear(x, w, b) for x, w, b in zip((q, k, v), weight.chunk(3), biases)]


@contextmanager
def _exporting() -> Iterator[Warned]:
    """The exporter warns of every Python number it meets: those of the model's own lines are kept as reasons."""
    logger, found = logging.getLogger("torch.onnx"), Warned()
    level, fast = logger.level, torch.backends.mha.get_fastpath_enabled()

    def note(what: str) -> None:
        place = users_line()
        if place is not None:
            own = users_line(inside=()) == place
            found.setdefault(place, what if own else f"inside torch, {what}")

    def keep(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, torch.jit.TracerWarning):
            what = str(message).split(" might cause")[0].split(". ")[0]
            note(what[:1].lower() + what[1:])

    logger.setLevel(logging.ERROR)
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
    attention: Any = patch.object(functional, "_in_projection_packed", _projected, create=True)
    # torch 2.13 prints the whole graph when a translation fails, whatever `verbose` says.
    printing: Any = patch.object(torch._C, "_jit_onnx_log", lambda *_: None)
    try:
        with warnings.catch_warnings(), attention, printing, Rewritten(note):
            warnings.simplefilter("always")
            warnings.showwarning = keep
            yield found
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)
