"""The tools that peers.py compares, each used as its own documentation says, to take out half of the recurrent units."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import sparsernn as srn

SHARE = 0.5
Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Look:
    """How a model looks to code that knows the dense one."""

    keys: frozenset[str]  # of its state_dict
    copies: bool  # copy.deepcopy works

    @classmethod
    def at(cls, model: nn.Module) -> Look:
        try:
            copy.deepcopy(model)
            copies = True
        except RuntimeError:
            copies = False
        return cls(frozenset(model.state_dict()), copies)


@dataclass(frozen=True)
class Outcome:
    """What a tool hands back, and what it should compute: the output of the dense model with the tool's own zeros."""

    returned: nn.Module
    expected: Tensor
    compared: str  # what `expected` is the output of
    masked: Look | None  # while the tool's masks are on; None if there is no such stage


Tool = Callable[[nn.Module, Inputs, list[nn.Module]], Outcome]


def output(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return model(*inputs)


def matrices(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """The weight matrices of all recurrent layers: path of the layer, the layer, name of the matrix in it."""
    found = []
    for path, layer in model.named_modules():
        if isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
            names = [n.removeprefix("parametrizations.").removesuffix(".original") for n, _ in layer.named_parameters()]
            found += [(path, layer, name) for name in names if name.startswith("weight_")]
    return found


def sparsernn(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """Half of the units of each layer, then `compact`; this project's own way."""
    sparsifier = srn.Prune(model, inputs, SHARE, level="unit").attach(torch.optim.SGD(model.parameters()))
    look = Look.at(model)
    sparsifier.finish()
    return Outcome(srn.compact(model, inputs), output(model, inputs), "its own model, units zeroed", look)


def torch_pruning(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """`BasePruner` as in its README: half of the channels of all but the output layers."""
    import torch_pruning as tp

    zeroed = copy.deepcopy(model)
    pruner = tp.pruner.BasePruner(
        model,
        example_inputs=inputs[0] if len(inputs) == 1 else inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=SHARE,
        ignored_layers=heads,
    )
    left = {}
    for group in pruner.step(interactive=True):
        for dependency, places in group:
            name = next((n for n, m in model.named_modules() if m is dependency.target.module), None)
            if name is not None:
                outgoing = pruner.DG.is_out_channel_pruning_fn(dependency.handler)
                _zero(name, zeroed.get_submodule(name), outgoing, list(places), left)
        group.prune()
    return Outcome(model, output(zeroed, inputs), "the dense model, the pruned channels zeroed", None)


def _zero(name: str, module: nn.Module, outgoing: bool, places: list[int], left: dict[tuple[str, str], Tensor]) -> None:
    """Zero in the dense twin what Torch-Pruning cuts at `places`, which count what earlier groups have left."""
    axis = 1 if isinstance(module, nn.Embedding) or not outgoing else 0
    parameters = {n: p for n, p in module.named_parameters(recurse=False) if p.dim() > axis}
    if isinstance(module, nn.LSTM) and not outgoing:
        parameters = {n: p for n, p in parameters.items() if n.startswith("weight_ih")}
    gates = 4 if isinstance(module, nn.LSTM) and outgoing else 1
    for key, parameter in parameters.items():
        size = parameter.shape[axis] // gates
        index = left.get((name, f"{axis} {key}"), torch.arange(size))
        cut = index[torch.tensor(places)]
        left[name, f"{axis} {key}"] = index[~torch.isin(index, cut)]
        with torch.no_grad():
            parameter.index_fill_(axis, torch.cat([cut + gate * size for gate in range(gates)]), 0)


def torch_ao_structured(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """`LSTMSaliencyPruner` for LSTMs, `SaliencyPruner` for other layers: prepare, step, prune."""
    from torch.ao.pruning._experimental.pruner import LSTMSaliencyPruner, SaliencyPruner

    lstm = any(isinstance(layer, (nn.LSTM, nn.LSTMCell)) for _, layer, _ in matrices(model))
    pruner = (LSTMSaliencyPruner if lstm else SaliencyPruner)({"sparsity_level": SHARE})
    pruner.prepare(model, [{"tensor_fqn": f"{path}.{name}"} for path, _, name in matrices(model)])
    pruner.enable_mask_update = True
    pruner.step()
    look, expected = Look.at(model), output(model, inputs)
    return Outcome(pruner.prune(), expected, "its own prepared model, masks on", look)


def torch_ao_weights(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """`WeightNormSparsifier`, which zeroes 1x4 blocks and by design makes nothing smaller: prepare, step, squash."""
    from torch.ao.pruning import WeightNormSparsifier

    sparsifier = WeightNormSparsifier(sparsity_level=SHARE)
    sparsifier.prepare(model, [{"tensor_fqn": f"{path}.{name}"} for path, _, name in matrices(model)])
    sparsifier.step()
    look, expected = Look.at(model), output(model, inputs)
    sparsifier.squash_mask()
    return Outcome(model, expected, "its own prepared model, masks on", look)


def torch_prune(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """`ln_structured` on the rows of each matrix, which by design makes nothing smaller; then `remove`."""
    found = matrices(model)
    for _, layer, name in found:
        prune.ln_structured(layer, name, amount=SHARE, n=2, dim=0)
    look, expected = Look.at(model), output(model, inputs)
    for _, layer, name in found:
        prune.remove(layer, name)
    return Outcome(model, expected, "its own model, masks on", look)


TOOLS: dict[str, Tool] = {
    "sparsernn": sparsernn,
    "Torch-Pruning": torch_pruning,
    "torch.ao.pruning, structured": torch_ao_structured,
    "torch.ao.pruning, weights": torch_ao_weights,
    "torch.nn.utils.prune": torch_prune,
}
