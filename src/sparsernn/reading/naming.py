"""Names of submodules and parameters, after the weights and nodes of the file."""

from __future__ import annotations

import keyword
import re

from torch import nn

# Last parts of a weight's name that say only which weight of its layer it is, or what was computed with it.
_WEIGHT = re.compile(
    r"(weight|kernel|bias|gamma|beta|w|r|(weight|bias)_(ih|hh)\w*|recurrent_kernel|readvariableop\w*|resource"
    r"|(matmul|biasadd|tensordot|conv1d|conv2d|mul|add|reshape)(_\d+)?)$",
    re.I,
)
# Names that an exporter made up: numbers, "onnx::MatMul_42", "val_3", "const_fold_opt__17", "Constant_2_output_0".
_MADE_UP = re.compile(r"(onnx::.*|_?val_?\d*|const.*|.*__\d+|graph_output.*|variable.*|.*_output_\d+|node_.*)$", re.I)
_EMPTY = re.compile(r"(|model(_\d+)?|statefulpartitionedcall|functional(_\d+)?|sequential(_\d+)?|body|cell)$", re.I)
_INLINED = re.compile(r"^(F\d+::)?(If_\d+_(then|else)_branch_*)?(_*Inline_\d+_*)*")  # graphs that were put in line

_TAKEN = ("training", "spec", "precision", "run", "explain")  # what the model itself has by these names


class Names:
    """Readable names, each given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def layer(self, weight: str, node: str, op: str) -> str:
        """Of a layer: the owner of its weight ("encoder.0.weight": encoder_0), else its node, else its operator."""
        parts = [part for part in _parts(weight) if not _WEIGHT.match(part)]
        if parts and not parts[0].isdigit() and not any(_MADE_UP.match(part) for part in parts):
            return self.own("_".join(parts), op)
        parts = [part for part in _parts(node) if not _MADE_UP.match(part)]
        return self.own("_".join(parts[:-1] or parts), op)

    def tensor(self, name: str) -> str:
        parts = _parts(name)
        return self.own("_".join([p for p in parts if not re.match("readvariableop|resource", p, re.I)]), "weight")

    def own(self, wanted: str, otherwise: str) -> str:
        plain = re.sub(r"\W+|__+", "_", wanted).strip("_")[:60] or otherwise.lower()
        plain = f"{otherwise.lower()}_{plain}" if plain[0].isdigit() else plain
        name, n = plain, 2
        while name in self._given or hasattr(nn.Module, name) or name in _TAKEN:
            name, n = f"{plain}_{n}", n + 1
        self._given.add(name)
        return name


def _parts(name: str) -> list[str]:
    parts = re.split(r"[/.]", re.sub(r"_[WRB]$", "", _INLINED.sub("", name)))
    found = [part.partition(":")[0] if not part.startswith("onnx::") else "" for part in parts]
    return [part for part in found if not _EMPTY.match(part)]


def identifier(name: str) -> str:
    """An argument's name for an input of the file: "input.1" is input_1."""
    plain = re.sub(r"\W+", "_", name.partition(":")[0]).strip("_") or "x"
    plain = f"{plain}_" if keyword.iskeyword(plain) else plain
    return f"input_{plain}" if plain[0].isdigit() else plain
