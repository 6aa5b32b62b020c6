"""Which units of the dense net are still there after rounds of compaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsernn.structure.structure import Structure
from sparsernn.structure.trace import trace


@dataclass(frozen=True)
class Survivors:
    """`numbers`: layer -> number in the dense net of each unit that is left, int64, rising; `structure`: of the net
    that has these."""

    numbers: Mapping[str, Tensor]
    structure: Structure
    example_inputs: Any

    @classmethod
    def of(cls, model: nn.Module, example_inputs: Any) -> Survivors:
        """All units of `model`."""
        structure = trace(model, example_inputs)
        numbers = {layer.name: torch.arange(layer.hidden_size) for layer in structure.layers}
        return cls(numbers, structure, example_inputs)

    def after(self, model: nn.Module, small: nn.Module) -> Survivors:
        """Those that `small`, the compacted `model`, still has; `model` is the net of these, trained on."""
        dead = self.structure.dead(dict(model.named_parameters()))
        structure = trace(small, self.example_inputs)
        widths = {layer.name: layer.hidden_size for layer in structure.layers}
        kept = {}
        for name, own in self.numbers.items():
            left = own[~dead[name]]
            # Compaction keeps dead units where no smaller form passes its check.
            kept[name] = left if len(left) == widths[name] else own
        return Survivors(kept, structure, self.example_inputs)
