"""How large a net is, as the studies of sizes count it."""

from __future__ import annotations

from torch import nn

from sparsernn.structure.cells import recurrent_layers


def recurrent_weights(model: nn.Module) -> int:
    """Weights in the matrices of the recurrent layers."""
    parameters = dict(model.named_parameters())
    names = {name for layer in recurrent_layers(model) for name in layer.matrices()}
    return sum(parameters[name].numel() for name in names)


def multiply_adds(model: nn.Module) -> int:
    """Multiply-adds of a time step: weights of all matrices but the embedding, where symbols are looked up."""
    return sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and not name.startswith("embedding"))
