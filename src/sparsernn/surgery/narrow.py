"""Cut planes out of a model's parameters and buffers, and bring its modules in line with their new widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.graph import GRAPHS
from ..nn.ragged import RaggedGRU, RaggedLSTM, RaggedRNN
from ..nn.rhn import RHN
from ..structure.cells import MODES, RecurrentLayer, cell_of
from ..structure.classes import Plane
from ._reasons import note
from .splits import parts_of_splits
from .states import keep_states

RAGGED: dict[type[nn.Module], type[Any]] = {nn.LSTM: RaggedLSTM, nn.GRU: RaggedGRU, nn.RNN: RaggedRNN}
STACKS = (nn.RNNBase, *RAGGED.values())
RECURRENT = (*STACKS, RHN, nn.RNNCellBase)  # that adapters can give the dense width


def kept_index(gone: Tensor) -> Tensor:
    """int64 indices of what stays."""
    return torch.nonzero(~gone)[:, 0]


def narrow_tensors(model: nn.Module, gone: Mapping[Plane, Tensor]) -> None:
    """Take the planes `gone` out of every parameter and buffer, in place: identities and ties stay."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for (name, axis), mask in gone.items():
        tensor = tensors[name]
        note(model, tensor)
        index = kept_index(mask).to(tensor.device)
        gradient = tensor.grad
        tensor.grad = None
        tensor.data = tensor.data.index_select(axis, index).contiguous()
        if gradient is not None:
            tensor.grad = gradient.index_select(axis, index).contiguous()


def fit_modules(
    model: nn.Module, layers: tuple[RecurrentLayer, ...], dead: Mapping[str, Tensor], states: bool
) -> nn.Module:
    """Sizes of every module from its weights; stacks whose widths now differ become ragged. Returns the model.

    `states`: recurrent modules take states of the dense width as well.
    """
    inside = parts_of_splits(model)  # whose states the split layer around them hands out
    for path, module in list(model.named_modules()):
        if isinstance(module, STACKS):
            fitted = _fit_stack(module)
            if fitted is not module:
                model = replace_module(model, path, fitted)
            if id(module) not in inside:
                _keep_states(fitted, [layer for layer in layers if layer.module == path], dead, states)
        elif isinstance(module, RHN):
            module.fit()
            _keep_states(module, [layer for layer in layers if layer.module == path], dead, states)
        elif isinstance(module, GRAPHS):
            _fit_graph(module, [layer for layer in layers if layer.module == path], dead)
        elif cell_of(module) is not None and isinstance(module, nn.RNNCellBase):
            module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]
            _keep_states(module, [layer for layer in layers if layer.module == path], dead, states)
        else:
            _fit_leaf(module)
    return model


def replace_module(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put `module` in the place of the one at `path` under all its names, in lists and dicts of attributes as well;
    returns the (new) root."""
    old = model.get_submodule(path)

    def swapped(value: Any) -> Any:
        if isinstance(value, list):
            value[:] = map(swapped, value)
        elif isinstance(value, dict):
            value.update({key: swapped(item) for key, item in value.items()})
        elif type(value) is tuple:
            return tuple(map(swapped, value))
        return module if value is old else value

    for parent in (*model.modules(), module):
        for name, value in vars(parent).items():
            if name not in ("_parameters", "_buffers"):
                parent.__dict__[name] = swapped(value)
    return module if old is model else model


def _fit_leaf(module: nn.Module) -> None:
    weight = getattr(module, "weight", None) if isinstance(module, LEAVES) else None
    if isinstance(module, nn.modules.batchnorm._NormBase):
        known = module.weight if module.running_mean is None else module.running_mean
        module.num_features = module.num_features if known is None else len(known)
    if isinstance(module, nn.GroupNorm) and module.weight is not None and len(module.weight) < module.num_channels:
        module.num_groups = module.num_channels = len(module.weight)  # a group for each channel, or nothing was cut
    if weight is None:
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Bilinear):
        module.out_features, module.in1_features, module.in2_features = weight.shape
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd):
        depthwise = module.groups > 1
        inside, outside = (1, 0) if not module.transposed else (0, 1)
        module.out_channels = weight.shape[outside]
        module.in_channels = weight.shape[0] if depthwise else weight.shape[inside]
        module.groups = weight.shape[0] if depthwise else 1
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)


LEAVES = (
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.PReLU,
)


def _fit_graph(module: Any, layers: list[RecurrentLayer], dead: Mapping[str, Tensor]) -> None:
    module.input_size = module.weight_ih_l0.shape[1]
    units = []
    for layer, (size,) in zip(layers, module.hidden_sizes):
        # Another form of surgery may have left the weights of this module alone.
        narrowed = getattr(module, f"weight_hh_l{layer.layer}").shape[1] < size
        units.append(kept_index(dead[layer.name]).tolist() if narrowed else list(range(size)))
    if units:
        module.keep_units(units)


def _fit_stack(module: Any) -> nn.Module:
    gates = len(MODES[module.mode].gates)
    directions = 2 if module.bidirectional else 1
    ends = [[f"_l{n}{end}" for end in ("", "_reverse")[:directions]] for n in range(module.num_layers)]
    hidden = [[getattr(module, "weight_hh" + end).shape[0] // gates for end in row] for row in ends]
    projected = hasattr(module, "weight_hr_l0")
    proj = [[getattr(module, "weight_hr" + end).shape[0] for end in row] for row in ends] if projected else None
    module.input_size = module.weight_ih_l0.shape[1]
    even = len({w for row in hidden for w in row}) == 1 and len({w for row in proj or [[0]] for w in row}) == 1
    if isinstance(module, nn.RNNBase):
        if even:
            module.hidden_size, module.proj_size = hidden[0][0], proj[0][0] if proj else 0
            module.flatten_parameters()
            return module
        if type(module) not in RAGGED:
            raise TypeError(f"{type(module).__name__} is a subclass of torch's layer: it has one width for all layers.")
        return _rebuild(RAGGED[type(module)], module, hidden, proj)
    if not even:
        module.hidden_sizes = tuple(map(tuple, hidden))
        module.proj_sizes = None if proj is None else tuple(map(tuple, proj))
        return module
    return _rebuild(getattr(nn, module.kind), module, hidden[0][0], proj[0][0] if proj else None)


def _rebuild(kind: type[Any], module: Any, hidden: Any, proj: Any) -> nn.Module:
    """The same stack as another class: the very same Parameter objects, hooks, modes and the user's attributes."""
    options = {name: getattr(module, name) for name in ("bias", "batch_first", "bidirectional")}
    if kind in (nn.LSTM, nn.GRU, nn.RNN):
        options |= {"num_layers": module.num_layers} | ({"proj_size": proj} if proj else {})
    elif proj is not None:
        options["proj_sizes"] = proj
    if kind in (nn.RNN, RaggedRNN):
        options["nonlinearity"] = module.nonlinearity
    new = kind(module.input_size, hidden, device="meta", **options)
    new.dropout = module.dropout
    new._parameters.update(module._parameters)
    if isinstance(new, nn.RNNBase):
        new._init_flat_weights()
    carry_over(module, new)
    if isinstance(new, nn.RNNBase):
        new.flatten_parameters()
    return new


def carry_over(old: nn.Module, new: nn.Module) -> None:
    """Hooks, mode, attachments and the user's own attributes of `old` for the module that takes its place."""
    for name, value in vars(old).items():
        own = name not in vars(new) and not name.startswith("_flat") and name not in ("_all_weights", "mode")
        if own or name.endswith("_hooks") or "_hooks_" in name or name == "training":
            new.__dict__[name] = value


def _keep_states(module: nn.Module, layers: list[RecurrentLayer], dead: Mapping[str, Tensor], states: bool) -> None:
    if not layers:
        return
    outer = [kept_index(dead[layer.unit_sets[-1]]).tolist() for layer in layers]
    dense = [layers[0].proj_size or layers[0].hidden_size]
    kept = [outer]
    if layers[0].cell.states > 1:
        dense.append(layers[0].hidden_size)
        kept.append([kept_index(dead[layer.name]).tolist() for layer in layers])
    even = len({(layer.hidden_size, layer.proj_size) for layer in layers}) == 1  # else ragged before: only compose
    # Modules of this package are no plain ones in any case: they take states of the dense width as well.
    own = type(module).__module__.startswith("sparsernn.")
    keep_states(module, dense, kept, (states or own) and even)
