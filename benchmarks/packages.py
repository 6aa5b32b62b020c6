"""The contracts on model classes of published packages: `python -m benchmarks.packages`.

Needs an environment of its own: see benchmarks/packages-requirements.txt. Writes results/benchmarks/packages.json and,
from it, docs/packages.md; `--page` writes the page only, `--only speechbrain` shows one package and writes nothing.

Each class is traced, the slices that read a random half of the units that may go are set to zero, and `compact` is
compared with the model in float64 (float32 where the class forces it), on the example and on other batch sizes and
lengths.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import sparsernn as srn
from sparsernn.files import write_atomically
from sparsernn.nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from sparsernn.structure import examples
from sparsernn.surgery.attachments import attachments
from sparsernn_studies.results import surroundings

from .measure import RESULTS
from .packages_models import WORKS, Work

PAGE = Path(__file__).resolve().parent.parent / "docs" / "packages.md"
SEED = 0
SAME = {"float64": 1e-10, "float32": 1e-5}  # as `difference` counts
NOTHING = ("may_go", "removed", "parameters_before", "parameters_after", "form", "max_difference")
INTRODUCTION = """# Model classes of published packages

After this page you know which recurrent classes of public packages can be made smaller, and what stays in them.

Made by `python -m benchmarks.packages` from `results/benchmarks/packages.json`; do not edit.

Recurrent model classes that others published, built at small sizes as their documentation builds them. Each is traced,
the slices that read a random half of the units that may go are set to zero, and `compact` makes the small model. *Off
by* is the largest difference between the two, relative for numbers above one, on the example and on other batch sizes
and lengths where the class takes them. *Form*: plain layers, ragged ones (layers or directions of unequal width),
widths (attributes of the class that name a width were updated) or adapters (its code still sees dense widths). With
*states carried*, `carried_states=True` says that returned states are only fed back. With *layers alike*, half of each
layer's units die and not half of all. The last rows are no classes but the shapes of PyTorch's own word-language-model
example and sequence-to-sequence tutorial. All in float64, except for classes that cast to float32:
{single}.
"""


def half_dead(model: nn.Module, structure: Any, even: bool) -> None:
    """Zero everything that reads a random half of the units that may go; with `even`, a half of each unit set's."""
    groups = structure.groups("unit")
    gone = torch.zeros(groups.count, dtype=torch.bool)
    for places in [torch.unique(of[of >= 0]) for of in groups.units.values()] if even else [torch.arange(groups.count)]:
        gone[places[torch.randperm(len(places))[: len(places) // 2]]] = True
    parameters = dict(model.named_parameters())
    for name, mask in groups.mask(parameters, gone, ("outgoing",)).items():
        parameters[name].data.masked_fill_(~mask, 0)


def form(small: nn.Module) -> str:
    """How the small model keeps to the class's code."""
    tags = {attachment.tag for module in small.modules() for attachment in attachments(module)}
    for tag, word in (("dense_widths", "adapters"), ("updated_widths", "widths")):
        if tag in tags:
            return word
    return "ragged" if any(isinstance(m, (RaggedLSTM, RaggedGRU, RaggedRNN)) for m in small.modules()) else "plain"


def outputs(model: nn.Module, inputs: Any) -> list[list[Any]]:
    """Outputs of each example, drawn with the same random numbers."""
    found = []
    for call in examples.calls(inputs):
        torch.manual_seed(SEED)
        args, kwargs = examples.fresh(call)
        with torch.no_grad():
            found.append(list(examples.leaves_in(model(*args, **kwargs))))
    return found


def difference(model: nn.Module, small: nn.Module, inputs: Any, carried: bool) -> float:
    """Largest difference, relative for numbers above one; narrowed states are left out only where they are carried."""
    worst = 0.0
    for dense, narrow in zip(outputs(model, inputs), outputs(small, inputs), strict=True):
        for a, b in zip(dense, narrow, strict=True):
            if isinstance(b, Tensor) and a.shape == b.shape:
                off = (a.double() - b.double()).abs() / a.double().abs().clamp(min=1)
                worst = max(worst, float(off.max()))
            elif not carried:
                raise ValueError(f"an output of shape {tuple(a.shape)} has another one in the small model")
    return worst


def staying(said: list[str]) -> int:
    """How many of the units that `Structure.dead` counts `compact` says that it could not cut."""
    texts = [text for text in said if "dead units stay (" in text and "a subclass of torch's" not in text]
    return sum(int(n) for text in texts for n in re.findall(r"(\d+) of", text.partition("): ")[0]))


def given(work: Work, size: tuple[int, int]) -> Any:
    """Example inputs in the class's type of numbers."""
    inputs = work.inputs(*size)
    return tree_map_only(Tensor, lambda t: t.to(work.dtype) if t.is_floating_point() else t, inputs)


def sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def row(work: Work) -> dict[str, Any]:
    """One class."""
    torch.manual_seed(SEED)
    found: dict[str, Any] = {"package": work.package, "version": metadata.version(work.package), "class": work.name}
    found["dtype"] = str(work.dtype).removeprefix("torch.")
    found |= {"units": None, **dict.fromkeys(NOTHING), "kept": [], "message": None}
    torch.set_default_dtype(work.dtype)  # classes that make tensors on the way make them in this
    model, inputs = work.build().to(work.dtype).eval(), given(work, work.sizes[0])
    found["parameters_before"] = sum(p.numel() for p in model.parameters())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            structure = srn.trace(model, inputs, carried_states=work.carried)
            found["units"] = sum(structure.unit_sets.values())
            found["may_go"] = sum(int(mask.sum()) for mask in structure.removable().values())
            found["kept"] = [
                f"{len(k.units)} of {k.unit_set}: {k.reason} ({k.operation} at {k.where.rpartition('/')[2]})"
                for k in structure.kept
            ]
            half_dead(model, structure, work.even)
            small = srn.compact(model, inputs, carried_states=work.carried)
            found["parameters_after"] = sum(p.numel() for p in small.parameters())
            found["form"] = form(small)
            others = [given(work, size) for size in work.sizes[1:]]
            found["max_difference"] = max(difference(model, small, x, work.carried) for x in (inputs, *others))
            dead = structure.dead(dict(model.named_parameters()))
            found["removed"] = sum(int(mask.sum()) for mask in dead.values()) - staying([str(w.message) for w in said])
        except Exception as error:
            found["message"] = sentence(error)
    own = [" ".join(str(w.message).split()) for w in said if str(w.message).startswith(("trace:", "compact:"))]
    if found["message"] is None and own:
        found["message"] = "; ".join(dict.fromkeys(own))
    return found


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(content: dict[str, Any]) -> str:
    """The whole page, from what the JSON file holds."""
    titles = ["package", "class", "units", "may go", "removed", "parameters", "form", "off by"]
    lines = [line(titles), line(["---"] * 2 + ["---:"] * 4 + ["---", "---:"])]
    notes = []
    for r in content["rows"]:
        ran = r["max_difference"] is not None
        sizes = f"{r['parameters_before']} to {r['parameters_after']}" if ran else str(r["parameters_before"])
        off = "raises" if not ran else f"{r['max_difference']:.0e}" if r["max_difference"] else "0"
        off = f"**{off}**" if ran and r["max_difference"] > SAME[r["dtype"]] else off
        numbers = ["-" if r[key] is None else str(r[key]) for key in ("units", "may_go", "removed")]
        lines.append(line([f"{r['package']} {r['version']}", r["class"], *numbers, sizes, r["form"] or "-", off]))
        told = [f"  - {text}" for text in (*r["kept"], *([r["message"]] if r["message"] else []))]
        if told:
            notes += [f"- {r['package']}, {r['class']}:", *(text.replace("`", "'") for text in told)]
    good = sum(r["max_difference"] is not None and r["max_difference"] <= SAME[r["dtype"]] for r in content["rows"])
    versions = ", ".join(f"{name} {content['versions'][name]}" for name in ("sparsernn", "torch"))
    single = ", ".join(dict.fromkeys(r["class"].split(",")[0] for r in content["rows"] if r["dtype"] == "float32"))
    parts = [INTRODUCTION.format(single=single), *lines, ""]
    parts += [f"{good} of {len(content['rows'])} ran and compute the same function; the others say below why not.", ""]
    parts += ["## What stays, and what was said", "", *notes, "", "## Again", ""]
    parts += [
        "In an environment of its own, as `benchmarks/packages-requirements.txt` says: "
        f"`python -m benchmarks.packages`. This run: {versions}, {content['device']}, {content['date']}.",
        "",
    ]
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--page", action="store_true", help="write docs/packages.md from the JSON file, measure nothing"
    )
    parser.add_argument("--only", help="print the rows of the packages or classes whose name has this in it")
    chosen = parser.parse_args(arguments)
    target = RESULTS / "packages.json"
    if not chosen.page:
        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        rows = []
        for work in WORKS:
            if chosen.only is None or chosen.only in f"{work.package} {work.name}":
                rows.append(row(work))
                print(json.dumps(rows[-1], indent=1), flush=True)
        if chosen.only is not None:
            return 0
        content: dict[str, Any] = {"name": "packages", "seed": SEED, "rows": rows, **surroundings()}
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_atomically(target, json.dumps(content, indent=2) + "\n")
    write_atomically(PAGE, page(json.loads(target.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
