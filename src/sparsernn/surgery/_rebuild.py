"""The classes whose sizes a saved model records, and how each is made again at those sizes.

The table is fixed: a file names an entry of it and never a class. Every size is checked against the dense module
that the caller built, which surgery only ever makes narrower, before anything of that size is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..nn.gated import GatedGRU, GatedLSTM, GatedRNN
from ..nn.graph import GraphGRU, GraphLSTM, GraphRNN
from ..nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from ..nn.rhn import RHN
from ..structure.cells import cell_of
from ._container import Fault, short
from ._sparse_records import describe_sparse
from .narrow import carry_over

Shapes = dict[str, tuple[int, ...]]

SIZES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "LSTM": (nn.LSTM, ("input_size", "hidden_size", "proj_size")),
    "GRU": (nn.GRU, ("input_size", "hidden_size")),
    "RNN": (nn.RNN, ("input_size", "hidden_size")),
    "LSTMCell": (nn.LSTMCell, ("input_size", "hidden_size")),
    "GRUCell": (nn.GRUCell, ("input_size", "hidden_size")),
    "RNNCell": (nn.RNNCell, ("input_size", "hidden_size")),
    "Linear": (nn.Linear, ("in_features", "out_features")),
    "Bilinear": (nn.Bilinear, ("in1_features", "in2_features", "out_features")),
    "Embedding": (nn.Embedding, ("num_embeddings", "embedding_dim")),
    "EmbeddingBag": (nn.EmbeddingBag, ("num_embeddings", "embedding_dim")),
    "BatchNorm": (nn.modules.batchnorm._BatchNorm, ("num_features",)),
    "InstanceNorm": (nn.modules.instancenorm._InstanceNorm, ("num_features",)),
    "GroupNorm": (nn.GroupNorm, ("num_channels", "num_groups")),
    "Conv": (nn.modules.conv._ConvNd, ("in_channels", "out_channels", "groups")),
    "PReLU": (nn.PReLU, ("num_parameters",)),
}
STACKS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (RaggedLSTM, RaggedGRU, RaggedRNN, GatedLSTM, GatedGRU, GatedRNN)
}
GRAPHS: dict[str, type[Any]] = {kind.__name__: kind for kind in (GraphLSTM, GraphGRU, GraphRNN)}
WIDTHS = ("hidden_size", "proj_size")


def describe(module: nn.Module) -> dict[str, Any] | None:
    """The record of `module` in a file, or None for a class that is not in the table."""
    for tag, kind in GRAPHS.items():
        if isinstance(module, kind):
            graph: Any = module
            return {"class": tag, "input_size": graph.input_size, "kept": graph.layering.kept}
    if isinstance(module, RHN):
        return {"class": "RHN", "input_size": module.input_size, "hidden_sizes": module.hidden_sizes}
    record = describe_sparse(module)
    if record is not None:
        return record
    for tag, kind in STACKS.items():
        if isinstance(module, kind):
            stack: Any = module
            names = ["input_size", "hidden_sizes", "proj_sizes"]
            names += ["living", "scaled"] if tag.startswith("Gated") else []
            # Surgery may leave the width before it on the module, for code that reads hidden_size.
            names += [name for name in WIDTHS if type(vars(module).get(name)) is int]
            return {"class": tag} | {name: getattr(stack, name) for name in names}
    for tag, (kind, names) in SIZES.items():
        if isinstance(module, kind):
            return {"class": tag} | {name: _size(module, name) for name in names}
    return None


def _size(module: Any, name: str) -> int:
    # Without weights only the statistics tell how wide a batch norm has become.
    statistics = module._buffers.get("running_mean") if name == "num_features" else None
    return getattr(module, name) if statistics is None else len(statistics)


def check_sizes(field: str, record: dict[str, Any], module: nn.Module) -> Shapes:
    """Shapes of the parameters and buffers of a plain module at the recorded sizes."""
    tag = record["class"]
    kind, names = SIZES[tag]
    if not isinstance(module, kind):
        raise Fault(f"{field}.class", f"{tag}, but the model has a {type(module).__name__} there.")
    for name in names:
        check_size(f"{field}.{name}", record.get(name), getattr(module, name))
    return _shapes(tag, record, module)


def check_size(field: str, size: object, dense: int) -> int:
    """`size`, if it is a whole number from 1 to the dense module's (0 stays 0)."""
    if type(size) is not int or not min(1, dense) <= size <= dense:
        raise Fault(field, f"got {short(size)}, expected a whole number from {min(1, dense)} to {dense}.")
    return size


def build_stack(field: str, record: dict[str, Any], module: nn.Module) -> nn.Module:
    """The ragged or gated stack of `record`, on the meta device: no memory is taken for it."""
    tag = record["class"]
    dense: Any = module
    kind = STACKS[tag].cell.name
    if not isinstance(module, (getattr(nn, kind), STACKS["Ragged" + kind], STACKS["Gated" + kind])):
        raise Fault(f"{field}.class", f"{tag}, but the model has a {type(module).__name__} there.")
    check_size(f"{field}.input_size", record.get("input_size"), dense.input_size)
    directions = 2 if dense.bidirectional else 1
    limits = {"hidden_sizes": "hidden_size", "proj_sizes": "proj_size"}
    for name, one in limits.items():
        sizes = record.get(name)
        most = getattr(dense, name, None) or ([[getattr(dense, one, 0)] * directions] * dense.num_layers)
        if name == "proj_sizes" and not most[0][0]:
            if sizes is not None:
                raise Fault(f"{field}.{name}", f"got {short(sizes)}, but the model has no projection there.")
            continue
        check_table(f"{field}.{name}", sizes, dense.num_layers, directions)
        for layer, row in enumerate(sizes):  # type: ignore[arg-type]
            for direction, size in enumerate(row):
                check_size(f"{field}.{name}[{layer}][{direction}]", size, most[layer][direction])
    widths: dict[str, int] = {}
    for name in WIDTHS:
        if name in record:
            most = max((n for row in getattr(dense, name + "s", None) or () for n in row), default=0)
            widths[name] = check_size(f"{field}.{name}", record[name], vars(module).get(name, most))
    options = {name: getattr(dense, name) for name in ("bias", "batch_first", "dropout", "bidirectional")}
    options |= {"nonlinearity": dense.nonlinearity} if kind == "RNN" else {}
    options |= {"proj_sizes": record["proj_sizes"]} if record.get("proj_sizes") else {}
    if tag.startswith("Gated"):
        for name in ("living", "scaled"):
            check_table(f"{field}.{name}", record.get(name), dense.num_layers, directions)
        for layer, row in enumerate(record["living"]):
            for direction, counts in enumerate(row):
                if not isinstance(counts, list):
                    raise Fault(f"{field}.living[{layer}][{direction}]", f"got {short(counts)}, expected a list.")
        options |= {"living": record["living"], "scaled": record["scaled"]}
    try:
        stack = STACKS[tag](record["input_size"], record["hidden_sizes"], device="meta", **options)
    except ValueError as error:
        raise Fault(field, str(error)) from None
    carry_over(module, stack)
    for name in WIDTHS:
        stack.__dict__.pop(name, None)
    stack.__dict__ |= widths
    return stack


def build_graph(field: str, record: dict[str, Any], module: nn.Module) -> nn.Module:
    """The graph network of `record`, on the meta device: `module` with the hidden units that were kept."""
    tag = record["class"]
    if not isinstance(module, GRAPHS[tag]):
        raise Fault(f"{field}.class", f"{tag}, but the model has a {type(module).__name__} there.")
    dense: Any = module
    size = check_size(f"{field}.input_size", record.get("input_size"), dense.input_size)
    kept = record.get("kept")
    if not isinstance(kept, list) or len(kept) != len(dense.hidden_sizes):
        raise Fault(f"{field}.kept", f"got {short(kept)}, expected {len(dense.hidden_sizes)} lists of units.")
    for layer, (units, (most,)) in enumerate(zip(kept, dense.hidden_sizes)):
        rising = isinstance(units, list) and all(type(k) is int and 0 <= k < most for k in units)
        if not rising or units != sorted(set(units)):
            raise Fault(f"{field}.kept[{layer}]", f"got {short(units)}, expected rising numbers from 0 to {most - 1}.")
    try:
        return dense.narrowed(size, kept)
    except ValueError as error:
        raise Fault(f"{field}.kept", str(error)) from None


def build_rhn(field: str, record: dict[str, Any], module: nn.Module) -> nn.Module:
    """The highway network of `record`, on the meta device."""
    if not isinstance(module, RHN):
        raise Fault(f"{field}.class", f"RHN, but the model has a {type(module).__name__} there.")
    size = check_size(f"{field}.input_size", record.get("input_size"), module.input_size)
    rows: Any = record.get("hidden_sizes")
    check_table(f"{field}.hidden_sizes", rows, module.num_layers, 1 + module.bidirectional)
    for layer, (row, dense) in enumerate(zip(rows, module.hidden_sizes)):
        for direction, (width, most) in enumerate(zip(row, dense)):
            check_size(f"{field}.hidden_sizes[{layer}][{direction}]", width, most)
    return module.narrowed(size, rows)


BUILDS: dict[str, Callable[[str, dict[str, Any], nn.Module], nn.Module]] = {
    **dict.fromkeys(STACKS, build_stack),
    **dict.fromkeys(GRAPHS, build_graph),
    "RHN": build_rhn,
}


def check_table(field: str, value: object, layers: int, directions: int) -> None:
    if (
        not isinstance(value, list)
        or [len(row) if isinstance(row, list) else -1 for row in value] != [directions] * layers
    ):
        raise Fault(field, f"got {short(value)}, expected {layers} lists of {directions}.")


def _shapes(tag: str, sizes: dict[str, Any], module: Any) -> Shapes:
    """Shape of each own parameter and buffer of a module of class `tag`."""
    if tag in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"):
        return _recurrent_shapes(len(cell_of(module).gates), sizes, module)
    values = [sizes[name] for name in SIZES[tag][1]]
    if tag in ("Embedding", "EmbeddingBag"):
        return {"weight": tuple(values)}
    if tag == "GroupNorm":
        channels, groups = values
        if channels % groups:
            raise Fault(tag, f"{channels} channels can't be shared out among {groups} groups.")
        return dict.fromkeys(("weight", "bias"), (channels,))
    if tag in ("BatchNorm", "InstanceNorm"):
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), tuple(values))
    if tag == "PReLU":
        return {"weight": tuple(values)}
    if tag == "Conv":
        inner, outer, groups = values
        if inner % groups or outer % groups:
            raise Fault(tag, f"{inner} and {outer} channels can't be shared out among {groups} groups.")
        first, second = (inner, outer) if module.transposed else (outer, inner)
        return {"weight": (first, second // groups, *module.kernel_size), "bias": (outer,)}
    *inputs, out = values
    return {"weight": (out, *inputs), "bias": (out,)}


def _recurrent_shapes(gates: int, sizes: dict[str, Any], module: Any) -> Shapes:
    hidden, output = sizes["hidden_size"], sizes.get("proj_size") or sizes["hidden_size"]
    layers, directions = getattr(module, "num_layers", 1), 1 + bool(getattr(module, "bidirectional", False))
    found: Shapes = {}
    for layer in range(layers):
        for end in ("", "_reverse")[:directions]:
            suffix = f"_l{layer}{end}" if hasattr(module, "num_layers") else ""
            found["weight_ih" + suffix] = (gates * hidden, output * directions if layer else sizes["input_size"])
            found["weight_hh" + suffix] = (gates * hidden, output)
            found["bias_ih" + suffix] = found["bias_hh" + suffix] = (gates * hidden,)
            found["weight_hr" + suffix] = (output, hidden)
    return found
