"""`inspect`: what a model's weights, gates and units are worth, what compaction would take, and why the rest stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..structure.cells import GRU, RecurrentLayer
from .gates import alive_gates, kind_counts, unit_kinds
from .multiplied import multiply_adds
from .report import Report
from .snapshot import Snapshot
from .tables import Count, Gate, Layer, Matrix, Part, Reason, Units

if TYPE_CHECKING:
    from ..structure.groups import SliceGroups
    from ..structure.trace import Structure

_ROLES: tuple[Literal["incoming", "outgoing", "bias", "state"], ...] = ("incoming", "outgoing", "bias", "state")


def inspect(
    model: nn.Module,
    example_inputs: Any,
    *,
    carried_states: bool = False,
    footprint: Mapping[str, Any] | None = None,
) -> Report:
    """Look at `model` as it is now and return a `Report`; the model is not changed.

    `example_inputs` is a tensor, a tuple of arguments, a dict of keywords or a list of such examples, and
    `carried_states` says whether states that the model returns are only fed back into it: both as in `trace`.
    `footprint`: what `export_c` returned, to be shown with the rest. The report holds a copy of what it shows, so that
    it stays true when training goes on; only `gradient_lag` runs the model again. Raises what `trace` raises.
    """
    from .._modules import unwrap
    from ..structure.trace import trace

    model = unwrap(model)
    structure = trace(model, example_inputs, carried_states=carried_states)
    return inspect_structure(model, structure, example_inputs, footprint or {})


def inspect_structure(
    model: nn.Module, structure: Structure, example_inputs: Any, footprint: Mapping[str, Any] | None = None
) -> Report:
    """`inspect` for a model that has been traced already."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    groups = structure.groups("unit").of(parameters)
    dead = {name: gone.cpu() for name, gone in structure.dead(parameters).items()}
    left = _left(groups, dead, parameters)
    constant = structure.constant_gates(parameters)
    for layer in structure.layers:
        if layer.cell == GRU:
            constant[layer.name]["n"] = _constant_n(layer, constant[layer.name]["r"], parameters, left)
    alive = {layer.name: alive_gates(layer, constant.get(layer.name, {})) for layer in structure.layers}
    kinds = {
        layer.name: unit_kinds(layer.gates, alive[layer.name], _dead_units(layer.name, layer.hidden_size, dead))
        for layer in structure.layers
    }
    units = {name: _units(name, size, groups, dead) for name, size in structure.unit_sets.items()}

    owned = {name for layer in structure.layers for name in (*layer.parameters(), *layer.matrices())}
    each = _times_a_step(model, structure, groups, example_inputs)
    recurrent = [
        _recurrent_layer(layer, parameters, left, units, alive[layer.name], kinds[layer.name], each)
        for layer in structure.layers
    ]
    named = {name for layer in structure.layers for name in layer.unit_sets}
    # Hand-written cells have units, but no declared gates: their matrices are listed under the modules that hold them.
    undeclared = [Layer(name, "cell", True, (), (units[name],)) for name in structure.unit_sets if name not in named]
    others = _other_layers(model, parameters, left, owned, each)
    matrices = [name for layer in structure.layers for name in layer.matrices()]
    return Report(
        Snapshot(
            model=type(model).__name__,
            layers=tuple(_in_model_order(recurrent + undeclared + others, parameters)),
            kept=tuple(
                Reason(k.unit_set, len(k.units), str(k.reason), str(k.operation), str(k.where)) for k in structure.kept
            ),
            notes=tuple(structure.notes),
            recurrent=structure.layers,
            masks={name: (parameters[name] != 0).cpu() for name in dict.fromkeys(matrices)},
            dead=dead,
            alive=alive,
            kinds=kinds,
            group_norms=_group_norms(groups, parameters),
            footprint=dict(footprint or {}),
        ),
        source=(model, example_inputs),
    )


def _times_a_step(model: nn.Module, structure: Structure, groups: SliceGroups, example_inputs: Any) -> dict[str, float]:
    """parameter -> how often the examples multiply with each of its weights, in one sequence and time step.

    A step is one of the recurrent layer that takes most of them: where another works at half that rate, its weights
    count half, and those of a convolution before it as often as it has positions.
    """
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    each = {name: number / sizes[name] for name, number in multiply_adds(model, example_inputs).items()}
    recurrent = [name for layer in structure.layers for name in layer.parameters("hh")]
    recurrent = recurrent or [m.parameter for m in groups.members if m.role == "incoming"]
    steps = max((each.get(name, 0.0) for name in recurrent), default=0.0) or 1.0
    return {name: number / steps for name, number in each.items()}


def _dead_units(name: str, size: int, dead: Mapping[str, Tensor]) -> Tensor:
    return dead.get(name, torch.zeros(size, dtype=torch.bool))


def _left(groups: SliceGroups, dead: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """parameter -> bool mask of its shape, True where compaction leaves it; parameters it leaves whole are absent."""
    gone = torch.zeros(groups.count, dtype=torch.bool)
    for name, number in groups.units.items():
        number = number.cpu()
        gone[number[_dead_units(name, len(number), dead) & (number >= 0)]] = True
    return {name: mask.cpu() for name, mask in groups.mask(parameters, gone, _ROLES).items()} if gone.any() else {}


def _constant_n(
    layer: RecurrentLayer, constant_r: Tensor, parameters: Mapping[str, Tensor], left: Mapping[str, Tensor]
) -> Tensor:
    """bool (H,): a GRU's n = tanh(b_in + r b_hn) without incoming weights is constant if r is, or if b_hn is zero."""
    constant = torch.ones(layer.hidden_size, dtype=torch.bool)
    b_hn = torch.zeros(layer.hidden_size)
    for rows in (rows for rows in layer.rows if rows.gate == "n"):
        at = slice(rows.start, rows.start + layer.hidden_size)
        if rows.kind == "bias":
            b_hn = parameters[rows.parameter][at].cpu()  # the last one is bias_hh
        else:
            weight = (parameters[rows.parameter][at] != 0).cpu()
            constant &= ~(weight & left[rows.parameter][at] if rows.parameter in left else weight).any(1)
    return constant & (constant_r.cpu() | (b_hn == 0))


def _units(name: str, size: int, groups: SliceGroups, dead: Mapping[str, Tensor]) -> Units:
    gone = _dead_units(name, size, dead)
    number = groups.units.get(name)
    may_go = torch.zeros(size, dtype=torch.bool) if number is None else number.cpu() >= 0
    return Units(
        name=name,
        size=size,
        dead=int(gone.sum()),
        free=int((may_go & ~gone).sum()),
        kept=int((~may_go & ~gone).sum()),
        dead_units=tuple(gone.nonzero().flatten().tolist()),
    )


def _group_norms(groups: SliceGroups, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Wen's groups (arXiv 1709.05027, appendix C): incoming and outgoing weights; units that are kept have none.
    norms = groups.squares(parameters).detach().sqrt().float().cpu()
    return {name: norms[number.cpu()[number.cpu() >= 0]] for name, number in groups.units.items()}


def _recurrent_layer(
    layer: RecurrentLayer,
    parameters: Mapping[str, Tensor],
    left: Mapping[str, Tensor],
    units: Mapping[str, Units],
    alive_GH: Tensor,
    kinds: tuple[str, ...],
    each: Mapping[str, float],
) -> Layer:
    parts: dict[str, Part] = dict.fromkeys(layer.parameters("ih"), "input")
    parts |= dict.fromkeys(layer.parameters("hh"), "recurrent")
    if layer.projection:
        parts[layer.projection] = "projection"
    parts |= dict.fromkeys(layer.parameters("bias"), "bias")
    stays = torch.tensor([kind != "dead" for kind in kinds])
    used = torch.stack([(parameters[name] != 0).any(0) for name in layer.parameters("ih")]).any(0)
    return Layer(
        name=layer.name,
        kind=layer.cell.name,
        recurrent=True,
        matrices=tuple(
            _matrix(name, part, parameters[name], left.get(name), each, _gates(layer, name, parameters[name], alive_GH))
            for name, part in parts.items()
        ),
        units=tuple(units[name] for name in layer.unit_sets if name in units),
        gates=int((alive_GH & stays).sum()),
        constant_gates=int((~alive_GH & stays).sum()),
        unused_inputs=int((~used).sum()),
        kinds=kind_counts(kinds),
    )


def _gates(layer: RecurrentLayer, name: str, parameter: Tensor, alive_GH: Tensor) -> tuple[Gate, ...]:
    if parameter.dim() < 2 or name == layer.projection:
        return ()
    found = []
    for rows in layer.rows:
        if rows.parameter == name:
            block = parameter[rows.start : rows.start + layer.hidden_size]
            constant = int((~alive_GH[layer.gates.index(rows.gate)]).sum())
            found.append(Gate(rows.gate, len(block), block.numel(), int(block.count_nonzero()), constant))
    return tuple(found)


def _matrix(
    name: str,
    part: Part,
    value: Tensor,
    left: Tensor | None,
    each: Mapping[str, float],
    gates: tuple[Gate, ...] = (),
) -> Matrix:
    times = each.get(name, 0.0)
    now = _count(times, value.numel(), int(value.count_nonzero()), value)
    compact = now
    if left is not None:
        nonzero = int((value.cpu() != 0).logical_and(left).count_nonzero())
        compact = _count(times, int(left.count_nonzero()), nonzero, value)
    return Matrix(name, part, tuple(value.shape), str(value.dtype).removeprefix("torch."), now, compact, gates)


def _count(times: float, numbers: int, nonzero: int, value: Tensor) -> Count:
    matrix = value.dim() >= 2
    return Count(
        parameters=numbers,
        weights=numbers if matrix else 0,
        nonzero=nonzero if matrix else 0,
        bytes=numbers * value.element_size(),
        mult_adds=round(numbers * times) if matrix else 0,
    )


def _other_layers(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    left: Mapping[str, Tensor],
    owned: set[str],
    each: Mapping[str, float],
) -> list[Layer]:
    """Every parameter outside the recurrent layers, by the module that holds it."""
    modules = dict(model.named_modules())
    layers: dict[str, list[Matrix]] = {}
    for name, value in parameters.items():
        if name in owned:
            continue
        path = name.rpartition(".")[0]
        module = modules.get(path)
        # A table may be the matrix of a product as well: a decoder tied to its embedding.
        lookup = isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and name not in each
        part: Part = "lookup" if lookup else "weight" if value.dim() >= 2 else "bias"
        layers.setdefault(path, []).append(_matrix(name, part, value, left.get(name), each))
    return [
        Layer(path or found[0].parameter, type(modules[path]).__name__ if path else "parameters", False, tuple(found))
        for path, found in layers.items()
    ]


def _in_model_order(layers: list[Layer], parameters: Mapping[str, Tensor]) -> list[Layer]:
    place = {name: n for n, name in enumerate(parameters)}

    def key(layer: Layer) -> tuple[int, bool]:
        if layer.matrices:
            return min(place[m.parameter] for m in layer.matrices), False
        # The units of a cell without a declaration stand behind the matrices of its module.
        around = layer.name.rpartition(".")[0] or layer.name
        return next((n for name, n in place.items() if name.startswith(around)), len(place)), True

    return sorted(layers, key=key)
