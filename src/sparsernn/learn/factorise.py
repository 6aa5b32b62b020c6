"""`factorise`: the matrices of a trained model as products of two thinner ones, without training it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from .._modules import copied, unwrap
from ..nn.factorised import MATRICES, factorised
from ..nn.ragged import RAGGED
from ..structure.trace import quiet
from .batches import inputs_of
from .governed import Include, governed
from .low_rank import Spectrum, finite_or_one, ranks_by
from .recording import Recording, recorded, warn_of_few

STACKS = (nn.LSTM, nn.GRU, nn.RNN, *RAGGED.values())


@dataclass(frozen=True)
class Factorised:
    """What `factorise` made.

    `model`: a new model, in which `sparsernn.nn.FactorisedLSTM` (GRU, RNN) and `FactorisedLinear` are in the place of
    layers with factors. `ranks`: matrix -> its rank, of those that are products now. `kept`: matrix -> why it could not
    be one. `share`: of the weights in the matrices that is left. `predicted`, `measured`: root mean squared change of
    the outputs, in shares of their own root mean square about their means; measured on the first batches.
    """

    model: Any
    ranks: Mapping[str, int]
    kept: Mapping[str, str]
    share: float
    predicted: float
    measured: float


def factorise(
    model: nn.Module,
    batches: Iterable[Any],
    to: float = 0.5,
    *,
    include: Include = "all",
    ridge: float = 0.01,
    inputs: Callable[[Any], Any] | None = None,
    positions: int = 40_000,
) -> Factorised:
    """A new model whose reading matrices are products of two thinner ones, as good as it gets on what they read.

    `weight_ih` and `weight_hh` of LSTM, GRU and RNN layers and the weights of linear layers are candidates. One budget
    goes over all of them: components of all matrices compete by what each gains in the outputs for a weight. Matrices
    that gain nothing stay whole, and those that have lost rank are reproduced exactly. Biases take up the mean. For
    given inputs the product is the best one, as in DRONE (Chen et al., NeurIPS 2021).

    - `batches`, `inputs`, `positions`: as for `fold`.
    - `to`: the share of the weights in these matrices that is left, both factors counted; at most.
    - `include`: "all", "recurrent" or patterns of parameter names: which matrices are candidates.
    - `ridge`: keeps the choice from leaning on what few positions say, in shares of the inputs' mean power.

    The model handed in is not changed; the new one runs, trains, is saved and loaded like any other. Raises ValueError
    where a batch can't be run or holds NaN, and where `to` can't be reached.
    """
    model = unwrap(model)
    if not isinstance(to, (int, float)) or not 0 < to <= 1:
        raise ValueError(f"factorise: to is {to!r}, expected a share above 0 and up to 1.")
    calls = inputs_of(batches, model, inputs, "factorise")
    first = next(calls, None)
    if first is None:
        raise ValueError("factorise: batches is empty; give some thousand positions of what the model takes.")
    names, kept = _candidates(model, governed(model, include).weights)
    if not names:
        raise ValueError(f"factorise: include={include!r} holds no matrix of an LSTM, GRU, RNN or Linear of torch.")
    with quiet(), torch.no_grad():
        recording = recorded(model, chain([first], calls), positions, [(name, 1) for name in names], "factorise")
        parameters = dict(recording.model.named_parameters())
        sites = {name: recording.site(name) for name in names}
        kept |= {name: site for name, site in sites.items() if isinstance(site, str)}
        spectra = {n: Spectrum(s, parameters[n], ridge) for n, s in sites.items() if not isinstance(s, str)}
        warn_of_few(
            recording.recorder, max((s.rows_RI.shape[1] for s in spectra.values()), default=0), "inputs", "factorise"
        )
        whole = sum(parameters[name].numel() for name in names)
        mine = sum(s.whole for s in spectra.values())
        scales = [_scale(recording, s) for s in spectra.values()]
        try:
            found, used = ranks_by(list(spectra.values()), scales, to * whole - (whole - mine))
        except ValueError as error:
            raise ValueError(f"factorise: to={to:g} can't be reached: {error}.") from None
        ranks = dict(zip(spectra, found))
        new = _made(copied(model), {name: (spectra[name], rank) for name, rank in ranks.items() if rank})
        predicted = sum(d * s.change(ranks[n]) for d, (n, s) in zip(scales, spectra.items()))
        change = recording.outputs.change(new)
    share = (used + whole - mine) / whole
    return Factorised(new, {n: r for n, r in ranks.items() if r}, kept, share, predicted**0.5, change**0.5)


def _candidates(model: nn.Module, wanted: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Names of the matrices that can become products, and why others of recurrent and linear layers can't."""
    names, kept = [], {}
    by_id = {id(p): name for name, p in model.named_parameters() if name in wanted}
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    for module in model.modules():
        if not isinstance(module, (nn.RNNBase, nn.RNNCellBase, nn.Linear, *STACKS)):
            continue
        for local, parameter in module._parameters.items():
            name = by_id.get(id(parameter))
            if name is None:
                continue
            if users[id(parameter)] > 1:
                kept[name] = "several modules share it"
            elif type(module) is nn.Linear or (type(module) in STACKS and local.startswith(MATRICES)):
                names.append(name)
            else:
                kept[name] = "it is no weight_ih or weight_hh of an LSTM, GRU or RNN of torch, nor of its Linear"
    return names, kept


def _scale(recording: Recording, spectrum: Spectrum) -> float:
    """What a mean squared change of one in what the matrix gives does to the outputs, in shares of theirs.

    Measured at half of the rank that a product may have.
    """
    rank = max(1, (spectrum.whole - 1) // spectrum.each // 2)
    error = spectrum.change(rank)
    if not error > 0:
        return 1.0
    site, parameters = spectrum.site, dict(recording.model.named_parameters())
    before = {n: parameters[n].detach().clone() for n in (site.parameter, site.bias) if n is not None}
    site.put(parameters[site.parameter], spectrum.low(rank))
    if site.bias is not None:
        parameters[site.bias].add_(spectrum.moved(rank).to(parameters[site.bias]))
    changed = recording.outputs.change(recording.model)
    for name, value in before.items():
        parameters[name].copy_(value)
    return finite_or_one(changed / error)


def _made(model: nn.Module, chosen: Mapping[str, tuple[Spectrum, int]]) -> nn.Module:
    """`model`, a copy, with layers of factors in the place of those that have some."""
    parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
    memo: dict[int, Any] = {}
    for path, module in model.named_modules():
        start = f"{path}." if path else ""
        own = {name: chosen[start + name] for name in module._parameters if start + name in chosen}
        if not own:
            continue
        factors = {name: spectrum.factors(rank) for name, (spectrum, rank) in own.items()}
        for spectrum, rank in own.values():
            if spectrum.site.bias is not None:
                bias = parameters[spectrum.site.bias]
                bias.add_(spectrum.moved(rank).to(bias))
        new = factorised(module, factors)
        vars(new).update({name: value for name, value in vars(module).items() if "_hooks" in name})
        # It stands wherever the copy refers to the old one, and its parameters for themselves.
        memo[id(module)] = new
        memo.update({id(p): p for p in new.parameters()})
    return copied(model, memo) if id(model) not in memo else memo[id(model)]
