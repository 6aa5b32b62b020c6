"""The two headers of a file, JSON and safetensors, say the same of every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..structure.coded import Form
from ..tensors import DTYPES, TensorFile
from ._coded import check_form, is_part, part_names
from ._container import NAMES, Fault, short

# Of a tensor that the file holds in few bytes: form, rows and columns, and the axis that its rows are.
Forms = dict[str, tuple[Form, tuple[int, int], int]]


def check_entries(tensors: Mapping[str, dict[str, Any]], file: TensorFile) -> Forms:
    """`tensors`: what the JSON says of each. Raises Fault; nothing is read before that."""
    coded = {name for name, entry in tensors.items() if "coded" in entry}
    stored = {name for name in file.shapes if not name.startswith(".")}
    if odd := sorted(stored ^ (tensors.keys() - coded)):
        raise Fault(f"tensors.{odd[0]}", "stands in only one of the two headers (JSON and safetensors).")
    forms: Forms = {}
    for name, entry in tensors.items():
        said = entry.get("dtype")
        dtype = NAMES.get(said) if isinstance(said, str) else None
        if dtype is None or (name in stored and DTYPES[dtype] != file.dtypes[name]):
            got, data = short(entry.get("dtype")), file.dtypes.get(name, "numbers and scales")
            raise Fault(f"tensors.{name}.dtype", f"got {got}, but the data are {data}.")
        shape = entry.get("shape")
        if not isinstance(shape, list) or [type(n) for n in shape] != [int] * len(shape) or min(shape, default=0) < 0:
            raise Fault(f"tensors.{name}.shape", f"got {short(shape)}, expected a list of whole numbers.")
        if name in coded:
            forms[name] = check_form(name, entry, file.shapes, file.dtypes)
        elif tuple(shape) != file.shapes[name]:
            found = list(file.shapes[name])
            raise Fault(f"tensors.{name}.shape", f"got {short(shape)}, but the data are {short(found)}.")
    known = {part for name in coded for part in part_names(name)}
    if odd := sorted(name for name in file.shapes if is_part(name) and name not in known):
        raise Fault(f"tensors{odd[0]}", "is of no tensor that is held in few bytes.")
    return forms
