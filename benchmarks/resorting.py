"""`python -m benchmarks.resorting`: how many blocks of 16 x 1 weights re-sorting the units of an LSTM layer saves.

No times, only counts, so the machine does not matter.
"""

from __future__ import annotations

import json
import os

os.environ["SPARSERNN_VECTOR_WIDTH"] = "16"

import torch
from torch import nn

from sparsernn.files import write_atomically
from sparsernn.runtime.order import blocks, patterns, plain_order, similar_order
from sparsernn_studies.results import surroundings

from .measure import RESULTS, small_weights
from .works import thinned

HIDDEN = 512


def shuffled(model: nn.LSTM) -> nn.LSTM:
    """The same function with the units in another order."""
    order = torch.randperm(model.hidden_size)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(p.view(4, model.hidden_size, -1)[:, order].view(p.shape))
            if "weight_hh" in name:
                p.copy_(p[:, order])
    return model


def uneven(model: nn.LSTM, density: float) -> nn.LSTM:
    """The largest weights of a layer whose units and columns differ in size, as those of trained layers do."""
    with torch.no_grad():
        weights = [p for p in model.parameters() if p.dim() == 2]
        for p in weights:
            p.copy_(torch.randn(p.shape) * torch.randn(model.hidden_size).repeat(4).mul(0.5).exp()[:, None])
            p.mul_(torch.randn(p.shape[1]).mul(0.5).exp())
        edge = torch.cat([p.abs().view(-1) for p in weights]).quantile(1 - density)
        for p in weights:
            p.mul_(p.abs() > edge)
    return model


def main() -> None:
    rows = []
    for gone in (0.9, 0.95, 0.98):
        for name in ("single weights at random", "largest single weights, uneven units", "16x1 blocks, units shuffled"):
            torch.manual_seed(0)
            model = small_weights(nn.LSTM(HIDDEN, HIDDEN))
            if name.startswith("largest"):
                model = uneven(model, 1 - gone)  # type: ignore[arg-type]
            else:
                model = thinned(model, 1 - gone, 1 if "blocks" in name else 0)
            made = blocks(_pattern(model), plain_order(HIDDEN))
            pattern = _pattern(shuffled(model) if "shuffled" in name else model)  # type: ignore[arg-type]
            found = similar_order(pattern)
            before = blocks(pattern, plain_order(HIDDEN))
            after = before if found is None else blocks(pattern, found)
            row = {"work": f"LSTM {HIDDEN}, {name}, {gone:.0%} gone", "made": made, "before": before, "after": after}
            rows.append(row | {"saved": round(1 - after / before, 4)})
            print(rows[-1])
    content = {"name": "resorting", "rows": rows, **surroundings()}
    write_atomically(RESULTS / "resorting.json", json.dumps(content, indent=2) + "\n")


def _pattern(model: nn.Module):
    return patterns([p for p in model.parameters() if p.dim() == 2], HIDDEN)


if __name__ == "__main__":
    main()
