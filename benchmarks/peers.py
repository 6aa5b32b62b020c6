"""This project and other pruning tools on twelve recurrent models: `python -m benchmarks.peers`.

Needs an environment of its own: `pip install -r benchmarks/peers-requirements.txt -e .`. Writes
results/benchmarks/peers.json and, from it, docs/peers.md; `--page` writes the page only.

Each tool is asked for half of the recurrent units of a model with random weights, and of the same model with half of
its units dead beforehand (all that they compute from and all that reads them is zero), which any criterion should find.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
import warnings
from importlib import metadata
from typing import Any

import torch
from torch import nn

import sparsernn as srn
from sparsernn.files import write_atomically
from sparsernn_studies.results import surroundings

from .measure import RESULTS
from .peers_models import WORKS, Work
from .peers_page import PAGE, page
from .peers_tools import TOOLS, Inputs, Look, Tool, output, recurrent

SEED = 0
STARTS = ("random weights", "half of the units dead")


def halve(model: nn.Module, inputs: Inputs) -> None:
    """Zero everything that every other unit owns and everything that reads it."""
    groups = srn.trace(model, inputs).groups("unit")
    gone = torch.arange(groups.count) % 2 == 1
    parameters = dict(model.named_parameters())
    for name, mask in groups.mask(parameters, gone, ("incoming", "outgoing", "bias", "state")).items():
        parameters[name].data.masked_fill_(~mask, 0)


def counts(model: nn.Module, layers: set[str]) -> tuple[int, int]:
    """Stored numbers of the model, and of its recurrent layers."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return sum(sizes.values()), sum(n for name, n in sizes.items() if any(name.startswith(f"{p}.") for p in layers))


def described(error: Exception) -> str:
    """Class, text and place of an error, without this machine's paths."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = place.filename.replace("\\", "/")
    where = where.rpartition("site-packages/")[2] if "site-packages/" in where else "/".join(where.split("/")[-2:])
    text = " ".join(str(error).split()) or place.line or ""
    text = text if len(text) <= 160 else f"{text[:70]} ... {text[-80:]}"
    return f"{type(error).__name__}: {text} ({where}, line {place.lineno})"


def row(name: str, work: Work, tool: str, use: Tool, start: str) -> dict[str, Any]:
    """One tool on one model."""
    torch.manual_seed(SEED)
    model, inputs = work.build().eval(), work.inputs()
    if start == STARTS[1]:
        halve(model, inputs)
    layers = {path for path, _ in recurrent(model)}
    dense = Look.at(model)
    before, own_before = counts(model, layers)
    found: dict[str, Any] = dict.fromkeys(("ran", "message", "parameters_after", "recurrent_after", "max_difference"))
    found = {"model": name, "tool": tool, "start": start, **found}
    found |= {"parameters_before": before, "recurrent_before": own_before}
    found |= dict.fromkeys(("keys_masked", "copies_masked", "keys_returned", "copies_returned", "note"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            outcome = use(model, inputs, [model.get_submodule(head) for head in work.heads])
        except Exception as error:
            return found | {"ran": False, "message": described(error)}
    found |= {"ran": True, "note": f"compared with {outcome.compared}"}
    own = [str(w.message).strip().split("\n")[0] for w in warned if issubclass(w.category, UserWarning)]
    found["message"] = "; ".join(dict.fromkeys(text for text in own if "oneDNN" not in text)) or None
    found["parameters_after"], found["recurrent_after"] = counts(outcome.returned, layers)
    if outcome.masked is not None:
        found |= {"keys_masked": outcome.masked.keys == dense.keys, "copies_masked": outcome.masked.copies}
    returned = Look.at(outcome.returned)
    found |= {"keys_returned": returned.keys == dense.keys, "copies_returned": returned.copies}
    try:
        result = output(outcome.returned, inputs)
    except Exception as error:
        return found | {"message": f"the returned model raises {described(error)}"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["max_difference"] = float((result - outcome.expected()).abs().max())
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--page", action="store_true", help="write docs/peers.md from the JSON file and measure nothing"
    )
    chosen = parser.parse_args(arguments)
    target = RESULTS / "peers.json"
    if not chosen.page:
        torch.set_num_threads(1)
        rows = [
            row(name, work, tool, use, start)
            for start in STARTS
            for name, work in WORKS.items()
            for tool, use in TOOLS.items()
        ]
        content: dict[str, Any] = {"name": "peers", "seed": SEED, "dtype": "float32", "rows": rows, **surroundings()}
        content["versions"]["torch-pruning"] = metadata.version("torch-pruning")
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_atomically(target, json.dumps(content, indent=2) + "\n")
    write_atomically(PAGE, page(json.loads(target.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
