"""How far back a unit looks: the norm of d h_t / d x_{t-lag}, by kind of unit.

Lobacheva et al. (arXiv 1911.05585) observe that units with all gates alive have long memories and units with only the
output gate alive ("vanilla" units) short ones. Here that is a number for any model: for the last step t of each
sequence and unit k, the 2-norm of the gradient of h_t[k] with respect to the layer's own input `lag` steps before,
averaged over sequences and over the units of one kind; and its mean lag, sum(lag * norm) / sum(norm), in time steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .._modules import in_eval
from ..nn.equations import step
from ..nn.layers import LayeredRecurrent
from ..structure.cells import RecurrentLayer
from ..structure.examples import calls, fresh, run
from .gates import KINDS


def gradient_lag(
    model: nn.Module,
    example_inputs: Any,
    layers: Sequence[RecurrentLayer],
    kinds: Mapping[str, tuple[str, ...]],
    lags: int = 50,
    *,
    units: int = 32,
    sequences: int = 4,
) -> dict[str, Any]:
    """layer -> {"kinds": {kind: {"units", "norm": [at lag 0, 1, ...], "mean_lag"}}, "steps"} as plain data.

    `lags`: the longest lag in time steps (shorter sequences give fewer); `units`: at most so many units of a kind,
    evenly spaced; `sequences`: at most so many sequences of the example (of a list, the first one that reaches the
    layer). `model` is copied and run in eval mode; the layer starts from a zero state. A reverse direction looks at
    its last step, the first of the sequence. Dead units are left out. Layers that the gradient can't be taken for map
    to {"skipped": sentence}. Raises ValueError if `lags`, `units` or `sequences` is less than 1, or the model can't
    run on the example.
    """
    for name, value in (("lags", lags), ("units", units), ("sequences", sequences)):
        if value < 1:
            raise ValueError(f"gradient_lag: got {name}={value}, expected at least 1.")
    twin = in_eval(model)
    known = {layer.module for layer in layers if _is_known(twin.get_submodule(layer.module))}
    inputs = _record(twin, example_inputs, known, sequences)
    parameters = {name: p.detach() for name, p in twin.named_parameters()}
    result: dict[str, Any] = {}
    outputs: dict[tuple[str, int, bool], Tensor] = {}
    for layer in layers:
        if layer.module not in known:
            kind = type(twin.get_submodule(layer.module)).__name__
            result[layer.name] = {"skipped": f"the equations of {kind} are not known here"}
            continue
        if layer.module not in inputs:
            result[layer.name] = {"skipped": "no example reached this layer"}
            continue
        x_TBI, lengths = inputs[layer.module]
        if layer.layer:
            below = [outputs[key] for key in sorted(outputs) if key[:2] == (layer.module, layer.layer - 1)]
            x_TBI = torch.cat(below, -1)
        step = _Step(layer, parameters)
        with torch.no_grad():
            outputs[layer.module, layer.layer, layer.reverse] = step.sequence(x_TBI, lengths)
        result[layer.name] = _layer(step, x_TBI, lengths, kinds[layer.name], lags, units)
    return result


def _is_known(module: nn.Module) -> bool:
    ours = isinstance(module, LayeredRecurrent) and module.like_torch
    return ours or isinstance(module, (nn.RNNBase, nn.RNNCellBase))


def _record(model: nn.Module, example_inputs: Any, paths: set[str], sequences: int) -> dict[str, tuple[Tensor, Tensor]]:
    """module path -> (input (T, B, I), lengths (B,)) of its first run; cells in a loop give one step a call."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    steps: dict[str, list[Tensor]] = {}

    def hook(path: str):
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x: Any = args[0] if args else kwargs["input"]
            if isinstance(module, nn.RNNCellBase):
                steps.setdefault(path, []).append(x.detach()[:sequences] if x.dim() == 2 else x.detach()[None])
            elif path not in seen:
                seen[path] = _time_first(x, bool(module.batch_first), sequences)

        return note

    handles = [model.get_submodule(path).register_forward_pre_hook(hook(path), with_kwargs=True) for path in paths]
    try:
        with torch.no_grad(), torch.random.fork_rng():
            for number, call in enumerate(calls(example_inputs), 1):
                steps.clear()
                run(model, fresh(call), number)
                for path, found in steps.items():
                    x_TBI = torch.stack([x for x in found if x.shape == found[0].shape])
                    seen.setdefault(path, (x_TBI, torch.full((x_TBI.shape[1],), len(x_TBI))))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _time_first(x: Any, batch_first: bool, sequences: int) -> tuple[Tensor, Tensor]:
    if isinstance(x, PackedSequence):
        x_TBI, lengths = pad_packed_sequence(x)
    else:
        x_TBI = x.unsqueeze(1) if x.dim() == 2 else x.transpose(0, 1) if batch_first else x
        lengths = torch.full((x_TBI.shape[1],), len(x_TBI))
    x_TBI, lengths = x_TBI[:, :sequences].detach(), lengths[:sequences]
    return x_TBI[: int(lengths.max())], lengths


class _Step:
    """One time step of a layer from its plain parameters: (x, state) -> (units' values before a projection, state)."""

    def __init__(self, layer: RecurrentLayer, parameters: Mapping[str, Tensor]) -> None:
        self.layer = layer
        self.w_ih, self.w_hh = (torch.cat([parameters[n] for n in layer.parameters(kind)]) for kind in ("ih", "hh"))
        biases = [parameters[name] for name in layer.parameters("bias")]
        zero = self.w_ih.new_zeros(len(self.w_ih))
        self.b_ih, self.b_hh = biases if len(biases) == 2 else (zero, zero)
        self.w_hr = parameters[layer.projection] if layer.projection else None

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        width = self.layer.proj_size or self.layer.hidden_size
        return self.w_ih.new_zeros(batch, width), self.w_ih.new_zeros(batch, self.layer.hidden_size)

    def __call__(self, x_BI: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        inputs, hidden = x_BI @ self.w_ih.T + self.b_ih, h @ self.w_hh.T + self.b_hh
        units, *cells = step(self.layer.cell, inputs, hidden, state)
        return units, (units if self.w_hr is None else units @ self.w_hr.T, cells[0] if cells else c)

    def ordered(self, x_TBI: Tensor, lengths: Tensor) -> Tensor:
        """Each sequence in the order in which the layer reads it (its own inverse); padding stays at the end."""
        if not self.layer.reverse:
            return x_TBI
        t = torch.arange(len(x_TBI))[:, None]
        return x_TBI[torch.where(t < lengths, lengths - 1 - t, t), torch.arange(x_TBI.shape[1])]

    def sequence(self, x_TBI: Tensor, lengths: Tensor) -> Tensor:
        """The layer's output (T, B, H or P), from a zero state, in the order of time."""
        state, outputs = self.start(x_TBI.shape[1]), []
        for x_BI in self.ordered(x_TBI, lengths):
            _, state = self(x_BI, state)
            outputs.append(state[0])
        return self.ordered(torch.stack(outputs), lengths)


def _layer(
    step: _Step, x_TBI: Tensor, lengths: Tensor, kinds: tuple[str, ...], lags: int, units: int
) -> dict[str, Any]:
    steps = int(lengths.min())
    reach = min(lags, steps - 1) + 1
    living = [kind for kind in KINDS if kind != "dead" and kind in kinds]
    chosen = {kind: _spaced([k for k, found in enumerate(kinds) if found == kind], units) for kind in living}
    numbers = [k for some in chosen.values() for k in some]
    parts = [torch.tensor(numbers[n : n + 64]) for n in range(0, len(numbers), 64)]
    norms_KL = torch.cat([_norms(step, x_TBI, lengths, part, reach) for part in parts])
    place = {k: n for n, k in enumerate(numbers)}
    result: dict[str, Any] = {}
    for kind, some in chosen.items():
        norm = norms_KL[[place[k] for k in some]].mean(0)
        total = float(norm.sum())
        mean_lag = float((norm * torch.arange(reach)).sum()) / total if total else 0.0
        result[kind] = {"units": kinds.count(kind), "norm": norm.tolist(), "mean_lag": mean_lag}
    return {"kinds": result, "steps": steps}


def _norms(step: _Step, x_TBI: Tensor, lengths: Tensor, numbers: Tensor, reach: int) -> Tensor:
    """Norms (K, reach) for units `numbers`: the batch is repeated once a unit, so that one backward pass serves all."""
    x_TBI = step.ordered(x_TBI, lengths)
    # The last `reach` steps of each sequence, aligned at their end; what was before only sets the state.
    start = (lengths - reach).tolist()
    with torch.no_grad():
        state = [step.start(1) for _ in start]
        for b, until in enumerate(start):
            for t in range(until):
                _, state[b] = step(x_TBI[t, b : b + 1], state[b])
    count, batch = len(numbers), len(start)
    window = torch.stack([x_TBI[t : t + reach, b] for b, t in enumerate(start)], 1)  # reach, B, I
    window = window.repeat(1, count, 1).requires_grad_(True)
    h, c = (torch.cat([one[part] for one in state]).repeat(count, 1) for part in (0, 1))
    with torch.enable_grad():
        values = None
        for x_BI in window:
            values, (h, c) = step(x_BI, (h, c))
        assert values is not None
        own = values[torch.arange(count * batch), numbers.repeat_interleave(batch)].sum()
        (gradient,) = torch.autograd.grad(own, window)
    return gradient.norm(dim=-1).flip(0).view(reach, count, batch).mean(-1).T.float().cpu()


def _spaced(numbers: list[int], most: int) -> list[int]:
    if len(numbers) <= most:
        return numbers
    return [numbers[round(n * (len(numbers) - 1) / max(1, most - 1))] for n in range(most)]
