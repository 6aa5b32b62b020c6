"""What compiled kernels need of stacks whose parameters are named as torch's, and the sizes that such stacks have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..structure.cells import GRU, LSTM, MODES
from ..tensors import short
from .protocol import Direction, Layer, Misfit, Packing, check_size, fitting_widths

Widths = tuple[tuple[int, ...], ...]  # by layer and direction


def check_widths(name: str, sizes: Sequence[int | Sequence[int]], directions: int) -> Widths:
    """One tuple for each layer, one width for each direction; ValueError where it is anything else."""
    widths = tuple((size,) if isinstance(size, int) else tuple(size) for size in sizes)
    for layer, row in enumerate(widths):
        if len(row) != directions or not all(isinstance(w, int) and not isinstance(w, bool) and w > 0 for w in row):
            raise ValueError(
                f"{name}[{layer}] is {list(row)}; expected {directions} positive whole number"
                f"{'s (forward, reverse)' if directions == 2 else ''} for each layer."
            )
    if not widths:
        raise ValueError(f"{name} is empty; expected one entry for each layer.")
    return widths


def widths_of(module: Any, name: str) -> Widths:
    """hidden_size or proj_size of each layer and direction of a stack, torch's or one of this package (0: none)."""
    found = getattr(module, name + "s", None)
    return found or ((getattr(module, name, 0),) * (1 + module.bidirectional),) * module.num_layers


def stacked(
    mode: str,
    inputs: Sequence[int],
    widths: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[int]],
    *,
    bias: bool,
    projected: bool = False,
    names: str = "_l{}",
) -> Packing:
    """What kernels need of layers on each other whose parameters are named as torch's; widths by layer and direction.

    `inputs`: what each layer reads; `outputs`: what it hands on, projected where it is.
    """
    gates = len(MODES[mode].gates)
    shapes: dict[str, tuple[int, ...]] = {}
    found: list[Direction] = []
    for layer, (size, row) in enumerate(zip(inputs, widths)):
        for reverse, (width, output) in enumerate(zip(row, outputs[layer])):
            end = names.format(layer) + ("_reverse" if reverse else "")
            own = [f"{name}{end}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")]
            ih, hh, bias_ih, bias_hh, hr = own
            shapes |= {ih: (gates * width, size), hh: (gates * width, output)}
            shapes |= {bias_ih: (gates * width,), bias_hh: (gates * width,)} if bias else {}
            shapes |= {hr: (output, width)} if projected else {}
            biases = (bias_ih, bias_hh) if bias else (None, None)
            found.append(Direction(layer, bool(reverse), ih, (hh,), biases[:1], biases[1], hr if projected else None))
    return Packing(mode, shapes, tuple(found))


def packing_of(module: Any) -> Packing | None:
    """What kernels need of a layer of this package or of torch; None for any other module."""
    if isinstance(module, Layer):
        return module.packing()
    if isinstance(module, nn.RNNBase):
        widths = widths_of(module, "hidden_size")
        outputs = widths_of(module, "proj_size") if module.proj_size else widths
        inputs = [module.input_size, *(sum(row) for row in outputs[:-1])]
        return stacked(module.mode, inputs, widths, outputs, bias=module.bias, projected=bool(module.proj_size))
    if isinstance(module, nn.RNNCellBase):
        width = ((module.hidden_size,),)
        return stacked(mode_of(module), [module.input_size], width, width, bias=bool(module.bias), names="")
    return None


def mode_of(module: Any) -> str:
    """ "LSTM", "GRU", "RNN_TANH" or "RNN_RELU", also of a cell; "RHN"."""
    if not isinstance(module, nn.RNNCellBase):
        return module.mode
    known = [cell.name for kind, cell in ((nn.LSTMCell, LSTM), (nn.GRUCell, GRU)) if isinstance(module, kind)]
    return known[0] if known else f"RNN_{module.nonlinearity.upper()}"  # type: ignore[union-attr]


def options_of(module: Any) -> dict[str, Any]:
    """The arguments for a stack like `module` beside its sizes; dropout, which may do nothing, is set afterwards."""
    found = {name: getattr(module, name) for name in ("bias", "batch_first", "bidirectional")}
    weight = next(module.parameters())
    found |= {"nonlinearity": module.nonlinearity} if hasattr(module, "nonlinearity") else {}
    return found | {"device": weight.device, "dtype": weight.dtype}


def stand_in(kind: Any, config: Mapping[str, Any], dense: nn.Module) -> Any:
    """A stack of class `kind` (a `LayeredRecurrent`) for the place of `dense`, on the meta device."""
    source: Any = dense
    ours = getattr(dense, "like_torch", False) and source.cell == kind.cell
    if not ours and not isinstance(dense, getattr(nn, kind.cell.name)):
        raise Misfit("class", f"{kind.__name__}, but the model has a {type(dense).__name__} there.")
    size = check_size("input_size", config.get("input_size"), source.input_size)
    rows = fitting_widths("hidden_sizes", config.get("hidden_sizes"), widths_of(source, "hidden_size"))
    options, projected = options_of(source) | {"device": "meta"}, widths_of(source, "proj_size")
    if projected[0][0]:
        options["proj_sizes"] = fitting_widths("proj_sizes", config.get("proj_sizes"), projected)
    elif config.get("proj_sizes") is not None:
        got = short(config["proj_sizes"])
        raise Misfit("proj_sizes", f"got {got}, but the model has no projection there.")
    counts = kind.counts(config, source)
    try:
        new = kind(size, rows, **counts, **options)
    except ValueError as error:
        raise Misfit("", str(error)) from None
    new.dropout = source.dropout
    return new
