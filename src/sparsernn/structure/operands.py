"""What the matrices inside one call really multiply: convolutions by patches, recurrent layers step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .cells import MODES

Operand = tuple[Tensor, Tensor, Tensor | None]  # (positions, inputs), the matrix, its bias

LAYERS = {mode.lower(): cell for mode, cell in MODES.items()}  # by the name of torch's call
CELLS = {f"{name}_cell": cell for name, cell in LAYERS.items()}


def patches(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The patches (positions, channels * taps) of conv1d or conv2d; None for groups, or padding given by name."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args)) | dict(kwargs)
    x, weight = given["input"], given["weight"]
    spatial = weight.dim() - 2
    if given.get("groups", 1) != 1 or isinstance(given.get("padding", 0), str):
        return None
    if x.dim() == weight.dim() - 1:
        x = x.unsqueeze(0)
    wanted = (("stride", 1), ("padding", 0), ("dilation", 1))
    stride, padding, dilation = (_two(given.get(key, alone), spatial, alone) for key, alone in wanted)
    if spatial == 1:
        x = x.unsqueeze(2)
    kernel = (1, weight.shape[2]) if spatial == 1 else tuple(weight.shape[2:])
    unfolded_BKN = torch.nn.functional.unfold(x, kernel, dilation, padding, stride)
    return unfolded_BKN.transpose(1, 2).reshape(-1, unfolded_BKN.shape[1])


def _two(value: Any, spatial: int, alone: int) -> tuple[int, int]:
    """Stride, padding or dilation of both axes of an image; of a sequence the first is `alone`."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return (alone, numbers[0]) if spatial == 1 else (numbers[0], numbers[-1])


def steps_of_cell(args: Sequence[Any]) -> Iterator[Operand]:
    """Operands of `torch._VF.lstm_cell` and its kin: the input, and the state before."""
    x, state = args[0], args[1]
    h = state[0] if isinstance(state, (list, tuple)) else state
    w_ih, w_hh = args[2:4]
    b_ih, b_hh = (*args[4:6], None, None)[:2]
    yield x.reshape(-1, x.shape[-1]), w_ih, b_ih
    yield h.reshape(-1, h.shape[-1]), w_hh, b_hh


def steps_of_layer(name: str, args: Sequence[Any], given: Tensor) -> Iterator[Operand]:
    """Operands of `torch._VF.lstm` and its kin, which gave `given`, layer by layer and direction by direction: the
    input, h before each step, and what a projection reads, at true positions alone where the call is packed."""
    packed = isinstance(args[3], (list, tuple))
    if packed:
        sequence = PackedSequence(args[0], args[1])
        x_TBI, lengths_B = pad_packed_sequence(sequence)
        states, weights, biases, layers, bidirectional = args[2], args[3], args[4], args[5], args[8]
        last_TBH, _ = pad_packed_sequence(PackedSequence(given, args[1]))
    else:
        x_TBI = args[0].transpose(0, 1) if args[8] else args[0]
        lengths_B = torch.full((x_TBI.shape[1],), x_TBI.shape[0])
        states, weights, biases, layers, bidirectional = args[1], args[2], args[3], args[4], args[7]
        last_TBH = given.transpose(0, 1) if args[8] else given
    states = tuple(states) if isinstance(states, (list, tuple)) else (states,)
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    valid_TB = torch.arange(x_TBI.shape[0])[:, None] < lengths_B[None, :]
    call = getattr(torch._VF, name)  # type: ignore[attr-defined]
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            mine = weights[place * each : (place + 1) * each]
            own: list[Tensor] = [state[place : place + 1] for state in states]
            source = _turned(x_TBI, lengths_B) if direction else x_TBI
            if layer == layers - 1:  # these have been computed already
                out_TBH = last_TBH.chunk(directions, dim=2)[direction]
                out_TBH = _turned(out_TBH, lengths_B) if direction else out_TBH
            else:
                hx: Any = tuple(own) if len(own) > 1 else own[0]
                out_TBH = call(source, hx, mine, biases, 1, 0.0, False, False, False)[0]
            before_TBH = torch.cat([own[0], out_TBH[:-1]])
            b_ih, b_hh = mine[2:4] if biases else (None, None)
            yield source[valid_TB], mine[0], b_ih
            yield before_TBH[valid_TB], mine[1], b_hh
            if len(mine) % 2:  # the last of an odd number is a projection
                yield _projected(source, before_TBH, own[1][0], mine, biases)[valid_TB], mine[-1], None
            outputs.append(_turned(out_TBH, lengths_B) if direction else out_TBH)
        x_TBI = torch.cat(outputs, dim=2)


def _projected(x_TBI: Tensor, before_TBP: Tensor, c_BH: Tensor, weights: Sequence[Tensor], biases: bool) -> Tensor:
    """What an LSTM's projection reads at each step, o tanh(c): (steps, batch, hidden)."""
    gates_TBG = x_TBI @ weights[0].T + before_TBP @ weights[1].T
    if biases:
        gates_TBG = gates_TBG + weights[2] + weights[3]
    found = []
    for gates_BG in gates_TBG:
        i, f, g, o = gates_BG.chunk(len(LAYERS["lstm"].gates), dim=1)
        c_BH = f.sigmoid() * c_BH + i.sigmoid() * g.tanh()
        found.append(o.sigmoid() * c_BH.tanh())
    return torch.stack(found)


def _turned(x_TBI: Tensor, lengths_B: Tensor) -> Tensor:
    """Each sequence backwards within its length; what is behind it stays in place."""
    steps_T = torch.arange(x_TBI.shape[0])[:, None]
    index_TB = torch.where(steps_T < lengths_B[None, :], lengths_B[None, :] - 1 - steps_T, steps_T)
    return x_TBI.gather(0, index_TB[:, :, None].expand_as(x_TBI).to(x_TBI.device))
