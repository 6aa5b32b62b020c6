"""Which units of the dense net are still there after rounds of compaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsernn.structure.trace import trace


@dataclass(frozen=True)
class Survivors:
    """`numbers`: layer -> number in the dense net of each unit that is left, int64, rising."""

    numbers: Mapping[str, Tensor]
    example_inputs: Any

    @classmethod
    def of(cls, model: nn.Module, example_inputs: Any) -> Survivors:
        """All units of `model`."""
        layers = trace(model, example_inputs).layers
        return cls({layer.name: torch.arange(layer.hidden_size) for layer in layers}, example_inputs)

    def after(self, model: nn.Module, small: nn.Module) -> Survivors:
        """Those that `small`, the compacted `model`, still has."""
        dead = trace(model, self.example_inputs).dead(dict(model.named_parameters()))
        widths = {layer.name: layer.hidden_size for layer in trace(small, self.example_inputs).layers}
        kept = {}
        for name, own in self.numbers.items():
            left = own[~dead[name]]
            # Compaction keeps dead units where no smaller form passes its check.
            kept[name] = left if len(left) == widths[name] else own
        return Survivors(kept, self.example_inputs)
