"""Put the tensors of a saved model into a dense one, after every size, name and tie has been compared."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from .._modules import copied, places, unwrapped
from ..nn.protocol import Layer, layer_class
from ..structure.coded import CodedMatrix
from ..tensors import TensorFile
from ._coded import as_tensor, read_matrix
from ._container import NAMES, Fault, mapping, read_tensors, short
from ._entries import Forms, check_entries
from ._reasons import NOTE, check_notes, check_readers
from ._records import describe, from_record
from ._slots import Slot, may_set, slots
from .attachments import Checked, attachment_of
from .torch_modules import TABLE, UNSAID, Shapes
from .widths import output_width, state_widths
from .words import KeptWords


class Loader:
    def __init__(self, model: nn.Module, header: dict[str, Any], file: TensorFile, kernels: Set[str]) -> None:
        """kernels: paths of modules whose matrices in few bytes stay so, in `held`."""
        self.model, self.file, self.kernels = model, file, kernels
        self.modules = mapping(header, "modules", dict)
        self.tensors = mapping(header, "tensors", dict)
        self.ties = mapping(header, "ties", str)
        self.attached = mapping(header, "attached", list)
        self.dense = dict(places(model))
        self.stacks: dict[int, Layer] = {}  # id(dense module) -> the layer of this package in its place
        self.new: set[int] = set()  # ids of those of another class than the dense module
        self.exact: Shapes = {}
        self.forms: Forms = {}
        self.held: dict[str, dict[str, CodedMatrix]] = defaultdict(dict)
        self.late: list[str] = []  # names of tensors that the built model has no tensor for

    def build(self) -> nn.Module:
        self._check_modules()
        self.forms = check_entries(self.tensors, self.file)
        targets = self._check_places()
        self._check_reasons(targets)
        values = read_tensors(self.file)
        self._decode(values, targets)
        made: dict[str, Tensor] = {}
        # The memo puts every new tensor and module wherever the model refers to the old one, ties included, and
        # spares copies of the dense tensors.
        memo: dict[int, Any] = {}
        for slot, owner in targets:
            if owner not in made:
                made[owner] = self._tensor(slot, values[owner])
            memo[id(slot.tensor)] = memo[id(self._before(slot))] = made[owner]
        for module in reversed(self.dense.values()):  # parts before what is made of them
            if id(module) in self.stacks:
                memo[id(module)] = copy.deepcopy(self.stacks[id(module)], memo)
        for module in reversed(list(self.model.modules())):  # wrappers, the innermost first
            if (inner := unwrapped(module)) is not module:
                memo[id(module)] = copied(inner, memo)
        small = copied(self.model, memo)
        modules = dict(small.named_modules())
        for place, record in self.modules.items():
            module = modules[place]
            if record["class"] in TABLE:
                vars(module).update({name: record[name] for name in TABLE[record["class"]].sizes})
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()
        for place, module in modules.items():
            if isinstance(module, Layer) and place in self.modules:
                try:
                    module.check_tensors()
                except ValueError as error:
                    raise Fault(f"modules.{place}", str(error)) from None
        for slot in slots(small):
            dense = self.tensors.get(self.ties.get(slot.name, slot.name), {}).get("dense")
            if dense is not None and slot.role == "parameter":
                vars(slot.module).setdefault(NOTE, {})[slot.local] = dense
        self._set_late(modules, small, values)
        self._attach(modules, values)
        return small

    def _check_modules(self) -> None:
        wanted = {place: record for place, m in self.dense.items() if (record := describe(m)) is not None}
        # Files of earlier versions do not speak of these, which were never cut then.
        unsaid = {place: record for place, record in wanted.items() if record["class"] in UNSAID}
        self.modules = unsaid | dict(self.modules)
        if missing := sorted(wanted.keys() - self.modules.keys()):
            raise Fault(f"modules.{missing[0]}", "missing, but the model has such a module: another architecture.")
        for place, record in self.modules.items():
            field = f"modules.{place}"
            module = self.dense.get(place)
            if module is None:
                raise Fault(field, "the model has no such module: build the class that was saved.")
            layer, shapes = from_record(field, record, module)
            if layer is not None:
                self.stacks[id(module)] = layer
                if layer_class(layer) is not layer_class(module):
                    self.new.add(id(layer))
            start = place + "." if place else ""
            self.exact |= {start + name: shape for name, shape in shapes.items()}

    def _decode(self, values: dict[str, Tensor], targets: list[tuple[Slot, str]]) -> None:
        """Plain tensors in `values` for what is held in few bytes, or empty ones on the meta device where it stays."""
        users: dict[str, set[tuple[int, str]]] = defaultdict(set)
        for slot, owner in targets:
            users[owner].add((id(slot.module), slot.local))
        for name, (form, shape, axis) in self.forms.items():
            if name not in users:  # nobody has compared its size with the model
                raise Fault(f"tensors.{name}.coded", "is of no parameter of the model.")
            matrix, entry = read_matrix(name, form, shape, values), self.tensors[name]
            place, _, local = name.rpartition(".")
            # Rows of a matrix in float32 on kernels, and nobody else's.
            stays = place in self.kernels and entry["role"] == "parameter" and entry["dtype"] == "float32"
            if stays and axis == 0 and len(entry["shape"]) == 2 and len(users[name]) == 1:
                self.held[place][local] = matrix
                values[name] = torch.empty(entry["shape"], dtype=torch.float32, device="meta")
            else:
                values[name] = as_tensor(matrix, axis, entry["shape"], NAMES[entry["dtype"]])

    def _check_places(self) -> list[tuple[Slot, str]]:
        """Where each tensor of the file goes: a place of the model, and the name under which the value is stored."""
        found: list[tuple[Slot, str]] = []
        names: set[str] = set()
        by_tensor: dict[int, str] = {}
        by_owner: dict[str, int] = {}
        for slot in slots(self.model, self.stacks):
            if slot.role == "attribute":
                continue
            owner = self.ties.get(slot.name, slot.name)
            record = self.tensors.get(owner)
            if record is None:
                if slot.role == "cache":
                    continue
                raise Fault(f"tensors.{slot.name}", "missing, but the model has it: another architecture.")
            names.add(slot.name)
            if slot.role == "cache" and not _is_part(record["shape"], slot.tensor.shape):
                continue  # made anew by the model at some other size
            self._check_tensor(slot, record)
            if id(slot.module) not in self.new:
                tensor = id(self._before(slot))
                same = by_tensor.setdefault(tensor, owner), by_owner.setdefault(owner, tensor)
                if same != (owner, tensor):
                    raise Fault(f"ties.{slot.name}", "the model shares other tensors than the file does.")
            found.append((slot, owner))
        for name in [*self.tensors, *self.ties]:
            role = self.tensors.get(self.ties.get(name, name), {}).get("role")
            if name in names or role == "cache":
                continue
            if role == "attribute" or (role == "buffer" and self._is_empty_buffer(name)):
                self.late.append(name)
                continue
            raise Fault(
                f"tensors.{name}",
                "the model has no such parameter or buffer: another architecture, or one that makes it at its first "
                "run, which has to come before load.",
            )
        return found

    def _before(self, slot: Slot) -> Tensor:
        """What the model that was given has at this place; where it has nothing there, the slot's own tensor."""
        module = self.dense.get(slot.name.rpartition(".")[0])
        found = None if module is None else module._parameters.get(slot.local, module._buffers.get(slot.local))
        return slot.tensor if found is None else found

    def _check_reasons(self, targets: list[tuple[Slot, str]]) -> None:
        """What is narrower than in the model was cut by surgery."""
        dense = {s.name: tuple(s.tensor.shape) for s in slots(self.model) if s.role == "parameter"}
        found = [(slot, self.tensors[owner]) for slot, owner in targets if slot.name in dense]
        if any("dense" in record for _, record in found):
            for slot, record in found:
                if "dense" in record or id(slot.module) not in self.new:
                    check_notes(slot.name, record, dense[slot.name])
        else:
            check_readers(self.dense, dense, {slot.name: tuple(record["shape"]) for slot, record in found})
        for place, module in self.dense.items():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                rows, attached = self.modules[place]["num_embeddings"], self.attached.get(place, [])
                mapped = any(isinstance(item, dict) and item.get("tag") == KeptWords.tag for item in attached)
                if rows < module.num_embeddings and not mapped:
                    words = f"got {rows}, but the model has {module.num_embeddings} and no map of words is attached."
                    raise Fault(f"modules.{place}.num_embeddings", words)

    def _is_empty_buffer(self, name: str) -> bool:
        place, _, local = name.rpartition(".")
        return place in self.dense and self.dense[place]._buffers.get(local, self) is None

    def _set_late(self, modules: Mapping[str, nn.Module], small: nn.Module, values: dict[str, Tensor]) -> None:
        """Buffers that the built model has not filled yet, and plain attributes: what a run or a user has set."""
        there = {slot.name: slot.tensor for slot in slots(small) if slot.role == "attribute"}
        left = []
        for name in self.late:
            value, old = values[self.ties.get(name, name)], there.get(name)
            place, _, local = name.rpartition(".")
            module = modules.get(place)
            if old is not None and old.dtype == value.dtype:
                old.data = value.to(old.device)
            elif module is not None and local in module._buffers:
                module._buffers[local] = value
            elif module is not None and may_set(module, local) and isinstance(vars(module).get(local), Tensor | None):
                setattr(module, local, value)
            else:
                left.append(name)
        if left:
            warnings.warn(
                f"load: {left[0][:100]} is a plain tensor of the saved model for which this one has no place, so it is "
                "left out; registered as a buffer it would be checked.",
                UserWarning,
                stacklevel=4,
            )

    def _check_tensor(self, slot: Slot, record: dict[str, Any]) -> None:
        field, shape, dense = f"tensors.{slot.name}", tuple(record["shape"]), tuple(slot.tensor.shape)
        if record.get("role") != slot.role:
            raise Fault(f"{field}.role", f"got {short(record.get('role'))}, but the model has a {slot.role} there.")
        dtype = NAMES[record["dtype"]]
        if dtype != slot.tensor.dtype and not (dtype.is_floating_point and slot.tensor.is_floating_point()):
            raise Fault(f"{field}.dtype", f"got {record['dtype']}, but the model has {slot.tensor.dtype} there.")
        exact = self.exact.get(slot.name)
        if exact is not None and shape != exact:
            raise Fault(f"{field}.shape", f"got {list(shape)}, but the recorded sizes give {list(exact)}.")
        if not _is_part(shape, dense):
            raise Fault(f"{field}.shape", f"got {list(shape)}, which is no part of the model's {list(dense)}.")

    def _tensor(self, slot: Slot, value: Tensor) -> Tensor:
        dense: Tensor | None = slot.tensor
        if slot.tensor.is_meta:
            # Of a new stack: device and requires_grad are those of the dense module in its place.
            place = slot.name.rpartition(".")[0]
            own = self.dense[place]._parameters if place in self.dense else {}
            dense = own.get(slot.local) if own.get(slot.local) is not None else next(iter(own.values()), None)
        if dense is not None and not dense.is_meta and not value.is_meta:
            value = value.to(dense.device)
        if slot.role != "parameter":
            return value
        return nn.Parameter(value, requires_grad=value.is_floating_point() and (dense is None or dense.requires_grad))

    def _attach(self, modules: Mapping[str, nn.Module], values: dict[str, Tensor]) -> None:
        narrowed = self._narrowed(modules)
        for place, items in self.attached.items():
            if place not in modules:
                raise Fault(f"attached.{place}", "the model has no such module.")
            seen: set[str] = set()
            for n, item in enumerate(items):
                field = f"attached.{place}[{n}]"
                tag, data = (item.get("tag"), item.get("data")) if isinstance(item, dict) else (None, None)
                kind = attachment_of(tag) if isinstance(tag, str) else None
                if kind is None or not isinstance(data, dict):
                    raise Fault(f"{field}.tag", f"got {short(tag)}, which this version does not know.")
                if kind.tag in seen and issubclass(kind, Checked):
                    raise Fault(f"{field}.tag", f"{kind.tag} stands twice.")
                seen.add(kind.tag)
                try:
                    found = kind.from_json(_with_tensors(data, values))
                    if isinstance(found, Checked):
                        found.check(self.dense[place], modules[place], narrowed)
                    found.attach(modules[place])
                except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
                    raise Fault(f"{field}.data", f"{type(error).__name__}: {error}") from None
                except RecursionError:
                    raise Fault(f"{field}.data", "nested too deeply.") from None

    def _narrowed(self, modules: Mapping[str, nn.Module]) -> set[tuple[int, int]]:
        """(dense, small) of all widths that are smaller in the file: axes of tensors, states, directions together."""
        dense = {slot.name: slot.tensor for slot in slots(self.model)}
        pairs: set[tuple[int, int]] = set()
        for name, record in self.tensors.items():
            if name in dense:
                pairs.update(zip(dense[name].shape, record["shape"]))
        for place, module in self.dense.items():
            wide, narrow = state_widths(module), state_widths(modules[place])
            for rows in zip(wide, narrow):
                pairs.update(zip(*rows))
            if wide and narrow:
                pairs.add((output_width(module), output_width(modules[place])))
        return {(a, b) for a, b in pairs if b < a}


def _is_part(shape: Sequence[int], dense: Sequence[int]) -> bool:
    return len(shape) == len(dense) and all(min(1, most) <= n <= most for n, most in zip(shape, dense))


def _with_tensors(value: Any, values: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$tensor"}:
            name = value["$tensor"]
            if not isinstance(name, str) or not name.startswith("."):
                raise KeyError(f"{short(name)} is no tensor of an attachment")
            return values[name]
        return {key: _with_tensors(part, values) for key, part in value.items()}
    return [_with_tensors(part, values) for part in value] if isinstance(value, list) else value
