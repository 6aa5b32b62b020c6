"""What flows through a network whose activations are left out: every output a sum over paths of products of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode

_UNCHANGED = {
    *("tanh", "sigmoid", "relu", "leaky_relu", "prelu", "elu", "selu", "gelu", "silu", "mish", "softplus", "hardtanh"),
    *("softmax", "log_softmax", "logsigmoid", "dropout", "layer_norm", "batch_norm", "group_norm", "rms_norm"),
}


@contextmanager
def linear(model: nn.Module) -> Iterator[None]:
    """Within, `model` (a copy, left changed) computes without activations, norms and biases: the gates of a recurrent
    layer add up, and an embedding gives the mean of its rows."""
    for name, parameter in model.named_parameters():
        if "bias" in name.rpartition(".")[2]:
            parameter.detach().zero_()
    forwards: tuple[tuple[type[nn.Module], Callable[..., Any]], ...]
    forwards = ((nn.RNNBase, _layers), (nn.RNNCellBase, _cell), (nn.Embedding, _mean_row))
    for module in model.modules():
        for kind, forward in forwards:
            if isinstance(module, kind):
                module.forward = partial(forward, module)
    with _Linear():
        yield


class _Linear(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "").rstrip("_") in _UNCHANGED and args and isinstance(args[0], Tensor):
            return args[0]
        return func(*args, **(kwargs or {}))


def _mean_row(module: nn.Embedding, x: Tensor) -> Tensor:
    return module.weight.mean(0).expand(*x.shape, -1)


def _summed(weight: Tensor, hidden: int) -> Tensor:
    """A matrix of gates, summed over them: (H, columns)."""
    return weight.view(-1, hidden, weight.shape[1]).sum(0)


def _cell(module: nn.RNNCellBase, x: Tensor, hx: Any = None) -> Any:
    h = x @ _summed(module.weight_ih, module.hidden_size).T
    if hx is not None:
        h = h + (hx[0] if isinstance(hx, tuple) else hx) @ _summed(module.weight_hh, module.hidden_size).T
    return (h, h) if isinstance(module, nn.LSTMCell) else h


def _layers(module: nn.RNNBase, x: Any, hx: Any = None) -> Any:
    lengths = None
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x, batch_first=module.batch_first)
    single = x.dim() == 2
    x_TBI = x[:, None] if single else x.transpose(0, 1) if module.batch_first else x
    directions, last, cells = 2 if module.bidirectional else 1, [], []
    for layer in range(module.num_layers):
        sides = []
        for direction in range(directions):
            end = f"_l{layer}{'_reverse' if direction else ''}"
            h = None if hx is None else (hx[0] if isinstance(hx, tuple) else hx)[layer * directions + direction]
            if single and h is not None:
                h = h[None]
            own, h, c = _sequence(module, end, x_TBI.flip(0) if direction else x_TBI, h)
            sides.append(own.flip(0) if direction else own)
            last.append(h)
            cells.append(c)
        x_TBI = torch.cat(sides, -1)
    y: Any = x_TBI[:, 0] if single else x_TBI.transpose(0, 1) if module.batch_first else x_TBI
    if lengths is not None:
        y = pack_padded_sequence(y, lengths, batch_first=module.batch_first, enforce_sorted=False)
    ends, c = (torch.stack(each)[:, 0] if single else torch.stack(each) for each in (last, cells))
    return y, (ends, c) if isinstance(module, nn.LSTM) else ends


def _sequence(module: nn.RNNBase, end: str, x_TBI: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """One layer and direction: outputs of all steps, the last one, and the last before the projection."""
    read, back = (_summed(getattr(module, f"weight_{kind}{end}"), module.hidden_size) for kind in ("ih", "hh"))
    project = getattr(module, f"weight_hr{end}") if module.proj_size else None
    c = x_TBI.new_zeros(x_TBI.shape[1], module.hidden_size)
    h_BH = x_TBI.new_zeros(x_TBI.shape[1], back.shape[1]) if h is None else h
    found: list[Tensor] = []
    for x_BI in x_TBI:
        c = x_BI @ read.T + h_BH @ back.T
        h_BH = c if project is None else c @ project.T
        found.append(h_BH)
    return torch.stack(found), h_BH, c
