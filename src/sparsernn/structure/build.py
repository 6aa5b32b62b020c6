"""From what the tracer recorded to plain data: classes, unit sets, and why units have to stay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from .cells import RecurrentLayer, has_computed, made_plain_by
from .channels import ROW, UNIT, Because, Channels, Reason
from .classes import Classes, PlaneMap
from .rules.normed import rows_in_norms, spared


def declare_cells(channels: Channels, layers: Sequence[RecurrentLayer], numbers: Mapping[str, int]) -> None:
    """Units of registered cells that are not torch's own: the rows of all gates of a unit are one class."""
    for layer in layers:
        if _torch_block(channels, layer, numbers) is not None:
            continue
        parts = []
        for rows in layer.rows:
            planes = channels.planes.get((numbers[rows.parameter], 0))
            if planes is None:
                break
            parts.append(planes.owner[rows.start : rows.start + layer.hidden_size])
        else:
            if parts and all((p != 0).all() for p in parts):
                for other in parts[1:]:
                    channels.union(parts[0], other)
                channels.kind[parts[0]] = UNIT


def build(
    channels: Channels,
    names: Sequence[str],
    layers: Sequence[RecurrentLayer],
    kept_weights: Mapping[int, Reason],
    values: Mapping[str, torch.Tensor],
) -> tuple[Classes, dict[int, list[Reason]]]:
    """Classes of channels, and the reasons that keep a class by its number.

    `names[number]` is a parameter's or a buffer's name, `values[name]` the tensor.
    """
    roots = channels.find(np.arange(channels.count))
    roots[0] = 0
    used = np.unique(roots[1:])
    number_of = np.full(channels.count, -1, dtype=np.int64)
    number_of[used] = np.arange(len(used))
    channel_class = number_of[roots]
    channel_class[0] = -1
    reasons: dict[int, list[Reason]] = {}

    def keep(ids: np.ndarray, reason: Reason) -> None:
        for c in np.unique(channel_class[ids[ids != 0]]).tolist():
            known = reasons.setdefault(c, [])
            new_kind = all(reason.because is not other.because for other in known)
            if reason not in known and (len(known) < 4 or new_kind):
                known.append(reason)

    for ids, reason in channels.reasons:
        keep(ids.numpy(), reason)
    for (number, _), planes in channels.planes.items():
        if number in kept_weights:
            keep(planes.channel, kept_weights[number])
    for ids, reason in rows_in_norms(channels, names):
        keep(ids, reason)
    weight_sides = np.zeros(channels.count, dtype=bool)  # rows of a linear layer that a unit is multiplied with
    dots = []
    for a, b, reason in channels.dots:
        row_a, row_b = channels.kind[a] == ROW, channels.kind[b] == ROW
        bad = ~(row_a | row_b) | channels.shifted[a] & row_a | channels.shifted[b] & row_b
        keep(a[bad], reason)
        weight_sides[a[row_a & ~row_b & ~bad]] = True
        weight_sides[b[row_b & ~bad]] = True
        dots.append((torch.from_numpy(a[~bad]), torch.from_numpy(b[~bad])))
    recurrent = _recurrent(channels, channel_class, len(used))
    planes = {}
    for (number, axis), p in channels.planes.items():
        outgoing = p.read | weight_sides[p.owner] & (p.owner != 0)
        planes[names[number], axis] = PlaneMap(
            classes=torch.from_numpy(channel_class[p.channel]),
            owner=torch.from_numpy(np.where(p.owner == 0, -1, p.owner)),
            read=torch.from_numpy(p.read),
            value=torch.from_numpy(p.value),
            outgoing=torch.from_numpy(outgoing),
            scaled=number in channels.norms and axis in channels.norms[number][0],
            sites=tuple(p.sites),
        )
    free = torch.from_numpy(recurrent | _embedded(channels, channel_class, names, len(used)))
    free[list(reasons)] = False
    for c, reason in spared(channels, names, values, channel_class, free).items():
        reasons.setdefault(c, []).append(reason)
        free[c] = False
    classes = Classes(
        count=len(used),
        free=free,
        channel_class=torch.from_numpy(channel_class),
        shifted=torch.from_numpy(channels.shifted.copy()),
        planes=planes,
        dots=tuple(dots),
        sets=_unit_sets(channels, channel_class, names, layers, recurrent),
        inputs=frozenset((name, 1) for layer in layers for name in layer.parameters("ih")),
        wider=tuple((layer.unit_sets[0], layer.unit_sets[1]) for layer in layers if layer.proj_size),
        equal=_equal(layers),
    )
    return classes, reasons


def computed_layers(model: nn.Module, classes: Classes) -> dict[int, Reason]:
    """Units of torch's layers whose weights torch computes at each call: no narrower layer would compute them."""
    found: dict[int, Reason] = {}
    for path, module in model.named_modules():
        if not isinstance(module, (nn.RNNBase, nn.RNNCellBase)) or not has_computed(module):
            continue
        cure = f"{made_plain_by(path, module)} makes them plain"
        text = "weights of its layer are computed at each call, which is not followed"
        reason = Reason(text, "forward", path or type(model).__name__, Because.NOT_FOLLOWED, cure)
        for (name, _), planes in classes.planes.items():
            if name.startswith(f"{path}." if path else ""):
                found |= dict.fromkeys(planes.classes[planes.owner >= 0].tolist(), reason)
    return found


def _equal(layers: Sequence[RecurrentLayer]) -> tuple[tuple[str, ...], ...]:
    """Unit sets of modules whose layers have one width, kind by kind (cell units, projected units)."""
    found: dict[tuple[str, int], list[str]] = {}
    for layer in layers:
        for kind, name in enumerate(layer.unit_sets if layer.one_width else ()):
            found.setdefault((layer.module, kind), []).append(name)
    return tuple(tuple(names) for names in found.values() if len(names) > 1)


def _recurrent(channels: Channels, channel_class: np.ndarray, count: int) -> np.ndarray:
    """bool (count,): the class has a recurrent unit, or its value feeds back into rows of its own."""
    found = np.zeros(count, dtype=bool)
    found[channel_class[channels.kind == UNIT]] = True
    for (number, axis), planes in channels.planes.items():
        if number in channels.looped:
            reading = channel_class[planes.channel[planes.read]]
            owners = _owners(channels, channel_class, number, axis)
            found[np.intersect1d(reading, owners)] = True
    for ids in channels.carried:
        found[channel_class[ids]] = True
    for classes in _longer_loops(channels, channel_class, found):
        found[classes] = True
    return found


def _owners(channels: Channels, channel_class: np.ndarray, number: int, axis: int) -> np.ndarray:
    """The classes whose values are computed from parameter `number` when it is read along `axis`."""
    chained = channels.chained.get((number, axis), set())
    owners = [
        p.owner[p.owner != 0]
        for (n, a), p in channels.planes.items()
        if (n == number and a != axis) or (n, a) in chained
    ]
    return np.unique(channel_class[np.concatenate(owners)]) if owners else np.zeros(0, dtype=np.int64)


def _longer_loops(channels: Channels, channel_class: np.ndarray, known: np.ndarray) -> list[list[int]]:
    """Classes that feed back into themselves by way of others: two matrices in a row, none of them torch's own.

    A loop through a unit that is known already (an attention in a decoder) makes nothing else recurrent.
    """
    if not channels.looped:
        return []
    import networkx as nx

    graph = nx.DiGraph()
    for (number, axis), planes in channels.planes.items():
        if number in channels.looped:
            reading = channel_class[planes.channel[planes.read]]
            matrix = ("matrix", number, axis)
            graph.add_edges_from((int(c), matrix) for c in np.unique(reading) if c >= 0 and not known[c])
            owners = _owners(channels, channel_class, number, axis)
            graph.add_edges_from((matrix, int(c)) for c in owners if c >= 0 and not known[c])
    return [
        [node for node in part if isinstance(node, int)]
        for part in nx.strongly_connected_components(graph)
        if len(part) > 1
    ]


def _embedded(channels: Channels, channel_class: np.ndarray, names: Sequence[str], count: int) -> np.ndarray:
    """bool (count,): columns of an embedding, which go once all that reads them is zero.

    Columns without any reader are of words that no example has (`FrequencyEmbedding`): another input may read them, so
    all columns of their module stay.
    """
    read = np.zeros(count, dtype=bool)
    owned: dict[str, list[np.ndarray]] = {}
    for (number, axis), planes in channels.planes.items():
        read[channel_class[planes.channel[planes.read]]] = True
        if axis == 1:
            own = channel_class[planes.owner[planes.owner != 0]]
            owned.setdefault(names[number].rpartition(".")[0], []).append(own)
    found = np.zeros(count, dtype=bool)
    for parts in owned.values():
        columns = np.concatenate(parts)
        found[columns] = read[columns].all()
    return found


def _torch_block(channels: Channels, layer: RecurrentLayer, numbers: Mapping[str, int]) -> int | None:
    hidden = layer.parameters("hh")
    key = ("unit", numbers[hidden[0]]) if hidden else None
    return channels.first(key) if key is not None else None


def _unit_sets(
    channels: Channels,
    channel_class: np.ndarray,
    names: Sequence[str],
    layers: Sequence[RecurrentLayer],
    recurrent: np.ndarray,
) -> dict[str, torch.Tensor]:
    numbers = {name: n for n, name in enumerate(names)}
    sets: dict[str, torch.Tensor] = {}
    for layer in layers:
        base = _torch_block(channels, layer, numbers)
        if base is not None:
            sets[layer.name] = torch.from_numpy(channel_class[base : base + layer.hidden_size].copy())
            if layer.proj_size:
                start = channels.first(("projected", numbers[layer.parameters("hh")[0]]))
                assert start is not None
                sets[layer.unit_sets[1]] = torch.from_numpy(channel_class[start : start + layer.proj_size].copy())
            continue
        planes = channels.planes.get((numbers[layer.rows[0].parameter], 0))
        start = layer.rows[0].start
        owner = None if planes is None else planes.owner[start : start + layer.hidden_size]
        reached = owner is not None and (owner != 0).all()
        sets[layer.name] = torch.from_numpy(
            channel_class[owner].copy() if reached and owner is not None else np.full(layer.hidden_size, -1)
        )
        for projected in layer.unit_sets[1:]:
            sets[projected] = torch.full((layer.proj_size,), -1)
    taken = np.zeros(len(recurrent), dtype=bool)
    for classes in sets.values():
        taken[classes[classes >= 0].numpy()] = True
    sets.update(_hand_written(channels, channel_class, names, recurrent & ~taken))
    return sets


_LAYER = re.compile(r"(^|\.)weight_hh_(l\d+(?:_reverse)?)(?:_orig)?$")  # parameters that are named as torch names them


def _hand_written(
    channels: Channels, channel_class: np.ndarray, names: Sequence[str], left: np.ndarray
) -> dict[str, torch.Tensor]:
    """Unit sets of cells without a declaration.

    They are named after the parameter through which the units feed back: the one that they read and own, or else one
    of a longer loop, or else the one that their values are computed from.
    """
    sets: dict[str, torch.Tensor] = {}
    left = left.copy()

    def take(number: int, classes: np.ndarray) -> None:
        fed = classes[(classes >= 0) & left[classes]]
        fed = fed[np.sort(np.unique(fed, return_index=True)[1])]
        if len(fed):
            sets[_LAYER.sub(r"\1\2", names[number].removesuffix(".weight"))] = torch.from_numpy(fed.copy())
            left[fed] = False

    for (number, axis), planes in channels.planes.items():
        here = channel_class[planes.channel[planes.read]]
        take(number, here[np.isin(here, _owners(channels, channel_class, number, axis))])
    for (number, _), planes in channels.planes.items():
        if number in channels.looped:
            take(number, channel_class[planes.channel[planes.read]])
    for (number, _), planes in channels.planes.items():
        take(number, channel_class[planes.owner[planes.owner != 0]])
    return sets
