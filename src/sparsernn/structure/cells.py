"""The registry of recurrent cells: which gates a cell has and where their rows lie.

A cell of hidden size H with G gates keeps its weights in matrices whose rows are G blocks of H rows, gate after
gate (`torch.nn.LSTM`: i, f, g, o; `torch.nn.GRU`: r, z, n), or in one matrix for each gate. `recurrent_layers` lists
every layer and direction of every registered cell in a model as plain data, so that nothing else in this package
needs to know the layout of a particular class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .._modules import is_stored

Kind = Literal["ih", "hh", "bias"]


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent cell.

    `name` and `gates` are what tables and reports show; `activations` are those of the gates, one for each ("sigmoid",
    "tanh", "relu"). `ih`, `hh` and `bias` name parameters relative to the module. A parameter with G*H rows holds all
    gates stacked in the order of `gates`; parameters with H rows hold one gate each, in that order. `holds` names the
    gates that a parameter stacks where they are not all. `constant` lists the gates that are a constant,
    activation(bias), once their rows in `ih` and `hh` are zero; `value` those with which the unit's value stays zero if
    they are zero; `apart` those whose products with input and state do not simply add up. `states`: 1 for h, 2 for h
    and c. `stacked`: layers and directions are in one module, as in torch.nn.LSTM. A parameter of another shape raises
    ValueError where the cell is first traced.
    """

    name: str
    gates: tuple[str, ...]
    ih: tuple[str, ...] = ("weight_ih",)
    hh: tuple[str, ...] = ("weight_hh",)
    bias: tuple[str, ...] = ("bias_ih", "bias_hh")
    activations: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    states: int = 1
    stacked: bool = False
    holds: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Rows:
    """The rows of one gate in one parameter: `parameter[start : start + hidden_size]`."""

    gate: str
    parameter: str
    start: int
    kind: Kind


@dataclass(frozen=True)
class RecurrentLayer:
    """One layer and direction of a recurrent module, by parameter names from the root of the model."""

    name: str  # "encoder.lstm.l0_reverse"; for a cell module its path
    module: str
    cell: Cell
    layer: int
    reverse: bool
    input_size: int
    hidden_size: int
    proj_size: int  # 0: none
    rows: tuple[Rows, ...]
    projection: str | None = None  # weight_hr, proj_size x hidden_size
    one_width: bool = False  # all layers and directions of the module have to be equally wide

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of the gates, in the order of the rows."""
        return self.cell.gates

    def parameters(self, kind: Kind | None = None) -> tuple[str, ...]:
        """Names of the parameters that hold this layer's gate rows, each once (`kind`: only those)."""
        return tuple(dict.fromkeys(r.parameter for r in self.rows if kind is None or r.kind == kind))

    def matrices(self) -> tuple[str, ...]:
        """Names of the weight matrices: ih, hh and the projection."""
        names = self.parameters("ih") + self.parameters("hh")
        return names + ((self.projection,) if self.projection else ())

    @property
    def unit_sets(self) -> tuple[str, ...]:
        """Names of this layer's kinds of units: its own, and with a projection the projected ones as well."""
        return (self.name, f"{self.name}.projected") if self.proj_size else (self.name,)


LSTM = Cell(
    "LSTM",
    ("i", "f", "g", "o"),
    activations=("sigmoid", "sigmoid", "tanh", "sigmoid"),
    constant=("i", "f", "g", "o"),
    value=("g",),
    states=2,
    stacked=True,
)
GRU = Cell(
    "GRU",
    ("r", "z", "n"),
    activations=("sigmoid", "sigmoid", "tanh"),
    constant=("r", "z"),
    value=("n",),
    apart=("n",),
    stacked=True,
)
RNN = Cell("RNN", ("h",), activations=("tanh",), constant=("h",), value=("h",), stacked=True)
RNN_RELU = replace(RNN, activations=("relu",))
RHN = Cell("RHN", ("h", "t"), activations=("tanh", "sigmoid"), constant=("h", "t"), stacked=True)  # one depth
ONNX_GATES = {"LSTM": "iofg", "GRU": "zrn", "RNN": "h"}  # the order of the gates in ONNX's nodes
MODES = {"LSTM": LSTM, "GRU": GRU, "RNN_TANH": RNN, "RNN_RELU": RNN_RELU, "RHN": RHN}  # as torch names them


@dataclass
class _Registry:
    cells: dict[type[nn.Module], Cell | Callable[[nn.Module], Cell]] = field(default_factory=dict)


_registry = _Registry()


def register_cell(module_type: type[nn.Module], cell: Cell | Callable[[nn.Module], Cell]) -> None:
    """Declare the gates of `module_type`, so that its layers can be sparsified gate by gate and shown.

    `cell`: a `Cell`, or, where modules of one class have different gates, a function from the module to its `Cell`.
    Tracing and compaction of a hand-written cell work without this; gate names, `include="recurrent"` and the tables
    need it. Subclasses inherit the declaration of their nearest registered base. Raises TypeError for what is no class
    of modules; parameters of other shapes raise ValueError at the first use.
    """
    if not (isinstance(module_type, type) and issubclass(module_type, nn.Module)):
        raise TypeError(f"register_cell: got {module_type!r}, expected a class derived from torch.nn.Module.")
    _registry.cells[module_type] = cell


def cell_of(module: nn.Module) -> Cell | None:
    """The declared cell of `module`, or None if its class and bases are unknown."""
    for base in type(module).__mro__:
        if base in _registry.cells:
            found = _registry.cells[base]
            cell = found if isinstance(found, Cell) else found(module)
            if cell.name == "RNN" and getattr(module, "nonlinearity", "tanh") == "relu":
                return replace(cell, activations=("relu",))
            return cell
    return None


def plain_parameters(model: nn.Module) -> dict[int, str]:
    """id(parameter) -> its first name in `model`: shared parameters have one name here."""
    return {id(p): name for name, p in reversed(list(model.named_parameters(remove_duplicate=False)))}


def recurrent_layers(model: nn.Module) -> tuple[RecurrentLayer, ...]:
    """Every layer and direction of every registered recurrent module of `model`, in the model's own order.

    Layers whose weights are not plain parameters (parametrized or weight-dropped modules) are left out;
    `unmanaged_modules` names them.
    """
    if any(map(is_stored, model.modules())):
        raise ValueError(
            'Rewire(storage="sparse") is training this model and keeps its matrices as their values alone.\n'
            "Call finish() first, or give a copy, which is plain: copy.deepcopy(model)."
        )
    names = plain_parameters(model)
    return tuple(layer for path, module in model.named_modules() for layer in _layers_of(path, module, names))


def unmanaged_modules(model: nn.Module) -> tuple[str, ...]:
    """Paths of recurrent modules whose weights are not plain parameters of their own."""
    names = plain_parameters(model)
    return tuple(
        path for path, module in model.named_modules() if cell_of(module) and not list(_layers_of(path, module, names))
    )


def made_plain_by(path: str, module: nn.Module) -> str:
    """The call of torch that makes the computed weights of `module` parameters of its own."""
    owner = f"model.{path}" if path else "model"
    name, undo = next(_computed(module), ("", ""))
    if not name:
        return "registering its weights as parameters again"
    return f"torch.nn.utils.{undo}({owner}, {name!r})"


def has_computed(module: nn.Module) -> bool:
    """Whether torch computes one of the weights of `module` at each call."""
    return next(_computed(module), None) is not None


def _computed(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of weights that torch computes, and what undoes that."""
    for name in getattr(module, "parametrizations", ()):
        yield name, "parametrize.remove_parametrizations"
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            yield hook._tensor_name, "prune.remove"
        elif isinstance(hook, WeightNorm):
            yield hook.name, "remove_weight_norm"
        elif isinstance(hook, SpectralNorm):
            yield hook.name, "remove_spectral_norm"


def _layers_of(path: str, module: nn.Module, names: Mapping[int, str]) -> Iterator[RecurrentLayer]:
    cell = cell_of(module)
    if cell is None:
        return
    if not cell.stacked or not hasattr(module, "num_layers"):
        layer = _one_layer(path, module, cell, names, "", 0, False)
        if layer is not None:
            yield layer
        return
    for index in range(module.num_layers):  # type: ignore[call-overload]
        for reverse in (False, True) if module.bidirectional else (False,):
            suffix = f"_l{index}" + ("_reverse" if reverse else "")
            layer = _one_layer(path, module, cell, names, suffix, index, reverse)
            if layer is not None:
                yield layer


def _one_layer(
    path: str, module: nn.Module, cell: Cell, names: Mapping[int, str], suffix: str, index: int, reverse: bool
) -> RecurrentLayer | None:
    def parameter(local: str) -> nn.Parameter | None:
        owner: object = module
        for part in (local + suffix).split("."):
            owner = getattr(owner, part, None)
        return owner if isinstance(owner, nn.Parameter) and id(owner) in names else None

    named: dict[Kind, tuple[str, ...]] = {"ih": cell.ih, "hh": cell.hh, "bias": cell.bias}
    found: dict[Kind, list[tuple[str, nn.Parameter | None]]] = {
        kind: [(local, parameter(local)) for local in locals_] for kind, locals_ in named.items()
    }
    weights = [p for _, p in (*found["ih"], *found["hh"])]
    if not weights or any(p is None for p in weights):
        return None
    first = weights[0]
    assert first is not None
    # Read from the weight, not from module.hidden_size: after surgery the layers of one module may differ in width.
    stacks = 1 if len(cell.ih) == len(cell.gates) else len(cell.holds.get((cell.ih or cell.hh)[0], cell.gates))
    hidden_size = first.shape[0] // stacks
    rows: list[Rows] = []
    for kind, parameters in found.items():
        taken = 0
        for local, p in parameters:
            if p is None:
                continue
            name, gates = names[id(p)], cell.holds.get(local, cell.gates)
            if p.shape[0] == len(gates) * hidden_size:
                rows += [Rows(gate, name, n * hidden_size, kind) for n, gate in enumerate(gates)]
            elif p.shape[0] == hidden_size and taken < len(gates):
                rows.append(Rows(gates[taken], name, 0, kind))
                taken += 1
            else:
                raise ValueError(
                    f"{name} of cell {cell.name} has {p.shape[0]} rows, expected {len(gates)} x {hidden_size} "
                    f"(all gates stacked) or {hidden_size} (one gate): correct the Cell given to register_cell."
                )
    hr = parameter("weight_hr")
    local_name = suffix.lstrip("_")
    return RecurrentLayer(
        name=".".join(part for part in (path, local_name) if part) or cell.name.lower(),
        module=path,
        cell=cell,
        layer=index,
        reverse=reverse,
        input_size=first.shape[1],
        hidden_size=hidden_size,
        proj_size=0 if hr is None else hr.shape[0],
        rows=tuple(rows),
        projection=None if hr is None else names[id(hr)],
        # A user's own subclass of torch's layers can't be exchanged for a ragged one.
        one_width=isinstance(module, nn.RNNBase) and type(module) not in (nn.LSTM, nn.GRU, nn.RNN),
    )


for _type, _cell in (
    (nn.LSTM, LSTM),
    (nn.GRU, GRU),
    (nn.RNN, RNN),
    (nn.LSTMCell, LSTM),
    (nn.GRUCell, GRU),
    (nn.RNNCell, RNN),
):
    register_cell(_type, _cell)
