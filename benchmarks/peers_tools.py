"""The tools that peers.py compares, each used as its documentation says, to take out half of the recurrent units."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    """What a tool hands back, and the model that it should be the same function as."""

    returned: nn.Module
    expected: Callable[[], Tensor]  # the output of the dense model with the tool's own masks or zeros
    compared: str  # what that is, in words
    masked: Look | None  # the model while the tool's masks are on; None if there is no such stage


Tool = Callable[[nn.Module, Inputs, list[nn.Module]], Outcome]


def output(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return model(*inputs)


def recurrent(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Path and module of each recurrent layer."""
    return [(path, m) for path, m in model.named_modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))]


def matrices(model: nn.Module) -> list[tuple[str, str]]:
    """Owner and name of each weight matrix of the recurrent layers; those with a parametrization lie inside it."""
    names = [f"{path}.{name}" for path, layer in recurrent(model) for name, _ in layer.named_parameters()]
    return [(name.rpartition(".")[0], name.rpartition(".")[2]) for name in names if "weight_" in name]


def sparsernn(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """Half of the units of each layer, then `compact`; this project's own way."""
    sparsifier = srn.Prune(model, inputs, SHARE, level="unit").attach(torch.optim.SGD(model.parameters()))
    look = Look.at(model)
    sparsifier.finish()
    small = srn.compact(model, inputs)
    return Outcome(small, lambda: output(model, inputs), "its own model with the units zeroed", look)


def torch_pruning(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """`BasePruner` as in its README: half of the channels of all but the output layers."""
    dense, paths = copy.deepcopy(model), [name for name, m in model.named_modules() if m in heads]
    _base_pruner(model, inputs, heads).step()
    return Outcome(
        model, lambda: _zeroed(dense, inputs, paths), "the dense model with the pruned channels zeroed", None
    )


def _base_pruner(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Any:
    import torch_pruning as tp

    return tp.pruner.BasePruner(
        model,
        example_inputs=inputs[0] if len(inputs) == 1 else inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=SHARE,
        ignored_layers=heads,
    )


def _zeroed(model: nn.Module, inputs: Inputs, heads: list[str]) -> Tensor:
    """Output of the model with zeros where Torch-Pruning would cut: its "pruning by masking"."""
    pruner = _base_pruner(model, inputs, [model.get_submodule(path) for path in heads])
    for group in pruner.step(interactive=True):
        for dependency, places in group:
            outgoing = pruner.DG.is_out_channel_pruning_fn(dependency.handler)
            _zero(dependency.target.module, outgoing, torch.tensor(list(places)))
    return output(model, inputs)


def _zero(module: nn.Module, outgoing: bool, places: Tensor) -> None:
    """Zero channels of a layer; operations without parameters have nothing to zero."""
    parameters = dict(module.named_parameters(recurse=False))
    if isinstance(module, nn.LSTM):
        places = torch.cat([places + gate * module.hidden_size for gate in range(4)]) if outgoing else places
        parameters = {n: p for n, p in parameters.items() if outgoing or n.startswith("weight_ih")}
    axis = 1 if isinstance(module, nn.Embedding) or not outgoing else 0
    for parameter in parameters.values():
        if parameter.dim() > axis:
            parameter.data.index_fill_(axis, places, 0)


def torch_ao_structured(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """`LSTMSaliencyPruner` for LSTMs, `SaliencyPruner` for other layers: prepare, step, prune."""
    from torch.ao.pruning._experimental.pruner import LSTMSaliencyPruner, SaliencyPruner

    lstm = any(isinstance(layer, (nn.LSTM, nn.LSTMCell)) for _, layer in recurrent(model))
    pruner = (LSTMSaliencyPruner if lstm else SaliencyPruner)({"sparsity_level": SHARE})
    pruner.prepare(model, [{"tensor_fqn": f"{path}.{name}"} for path, name in matrices(model)])
    pruner.enable_mask_update = True
    pruner.step()
    look, expected = Look.at(model), output(model, inputs)
    return Outcome(pruner.prune(), lambda: expected, "its own prepared model, masks on", look)


def torch_ao_weights(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """`WeightNormSparsifier`, which zeroes 1x4 blocks and by design makes nothing smaller: prepare, step, squash."""
    from torch.ao.pruning import WeightNormSparsifier

    sparsifier = WeightNormSparsifier(sparsity_level=SHARE)
    sparsifier.prepare(model, [{"tensor_fqn": f"{path}.{name}"} for path, name in matrices(model)])
    sparsifier.step()
    look, expected = Look.at(model), output(model, inputs)
    sparsifier.squash_mask()
    return Outcome(model, lambda: expected, "its own prepared model, masks on", look)


def torch_prune(model: nn.Module, inputs: Inputs, heads: list[nn.Module]) -> Outcome:
    """`ln_structured` on the rows of each matrix, which by design makes nothing smaller; then `remove`."""
    found = [(model.get_submodule(path), name) for path, name in matrices(model)]
    for layer, name in found:
        prune.ln_structured(layer, name, amount=SHARE, n=2, dim=0)
    look, expected = Look.at(model), output(model, inputs)
    for layer, name in found:
        prune.remove(layer, name)
    return Outcome(model, lambda: expected, "its own model, masks on", look)


TOOLS: dict[str, Tool] = {
    "sparsernn": sparsernn,
    "Torch-Pruning": torch_pruning,
    "torch.ao.pruning, structured": torch_ao_structured,
    "torch.ao.pruning, weights": torch_ao_weights,
    "torch.nn.utils.prune": torch_prune,
}
