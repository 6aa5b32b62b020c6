"""An ONNX file opened as plain data: sizes are looked at before anything is parsed, and nothing in it is executed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import require
from .graph import Given, Graph, Node, number, refuse, title

MAX_BYTES = 2**31 - 1  # of a protobuf
MAX_NODES = 100_000
MAX_DEPTH = 20  # of graphs in graphs
OPSETS = range(9, 27)
# ONNX's numbers of the element types that torch has too.
KINDS = {
    1: np.float32, 2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64,
}  # fmt: skip


def content_of(path: Path) -> bytes:
    """The bytes of a file of a size that can be an ONNX file."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise refuse(str(path), "is no regular file; expected an ONNX file.")
    if not 0 < found.st_size <= MAX_BYTES:
        raise refuse(str(path), f"has {found.st_size} bytes; expected an ONNX file of 1 to {MAX_BYTES} bytes.")
    with path.open("rb") as file:
        return file.read(found.st_size)


def open_graph(content: bytes, name: str) -> Graph:
    """The graph in these bytes; ValueError in a sentence for anything that is no ONNX file, or more than a graph."""
    onnx = require("onnx", "from_onnx")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's own, of a class that depends on how it was built
        raise refuse(name, f"is damaged or no ONNX file ({str(error)[:100]}).") from None
    if not model.HasField("graph") or not model.graph.node:
        raise refuse(name, "holds no graph: it is cut short, or no ONNX file.")
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    if version is None or version not in OPSETS:
        cure = "Convert it: onnx.version_converter.convert_version(onnx.load(path), 17)."
        raise refuse(name, f"is written in operator set {version}; expected {OPSETS[0]} to {OPSETS[-1]}.", cure)
    if model.functions:
        called = ", ".join(f.name for f in model.functions[:3])
        cure = "Put them in line: onnx.inliner.inline_local_functions(onnx.load(path))."
        raise refuse(name, f"defines functions of its own ({called}).", cure)
    graph = _Reader(version).graph(model.graph, 0)
    if missing := sorted(graph.reads()):
        raise refuse(name, f"reads {missing[0][:80]}, which nothing in it makes.")
    return replace(graph, widths=_widths(onnx, model))


def _widths(onnx: Any, model: Any) -> dict[str, int]:
    """The last size of each value that ONNX can tell."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # of its own classes; the sizes are hints
        return {}
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and sizes[-1].dim_value > 0:
            found[value.name] = sizes[-1].dim_value
    return found


class _Reader:
    def __init__(self, version: int) -> None:
        self.version, self.nodes = version, 0

    def graph(self, proto: Any, depth: int) -> Graph:
        self.nodes += len(proto.node)
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise refuse("the file", f"has more than {MAX_NODES} nodes, or graphs deeper than {MAX_DEPTH}.")
        if proto.sparse_initializer:
            raise refuse("the file", "stores sparse tensors, which are not read.", "Store them as dense ones.")
        constants = {tensor.name: array(tensor, tensor.name) for tensor in proto.initializer}
        given = tuple(_given(value) for value in proto.input)
        nodes = tuple(self.node(node, depth) for node in proto.node)
        graph = Graph(nodes, given, tuple(value.name for value in proto.output), constants)
        _refuse_twice(graph)
        return graph

    def node(self, proto: Any, depth: int) -> Node:
        name = proto.name or next(iter(proto.output), "")
        if proto.domain not in ("", "ai.onnx"):
            cure = "Export the model again with standard operators alone."
            raise refuse(
                title(proto.op_type, name), f"is of {proto.domain[:40]}, not one of ONNX's own operators.", cure
            )
        found: dict[str, Any] = {}
        for attribute in proto.attribute:
            found[attribute.name] = self.attribute(attribute, title(proto.op_type, name), depth)
        return Node(proto.op_type, proto.name, tuple(proto.input), tuple(proto.output), found, self.version)

    def attribute(self, proto: Any, where: str, depth: int) -> Any:
        kinds = {"FLOAT": "f", "INT": "i", "FLOATS": "floats", "INTS": "ints"}
        kind = proto.AttributeType.Name(proto.type)
        if proto.ref_attr_name or kind not in {*kinds, "STRING", "STRINGS", "TENSOR", "GRAPH"}:
            raise refuse(where, f"has an attribute {proto.name[:40]} of a kind that is not read ({kind}).")
        if kind == "STRING":
            return proto.s.decode(errors="replace")
        if kind == "STRINGS":
            return tuple(text.decode(errors="replace") for text in proto.strings)
        if kind == "TENSOR":
            return array(proto.t, where)
        if kind == "GRAPH":
            return self.graph(proto.g, depth + 1)
        value = getattr(proto, kinds[kind])
        as_read = number if kind.startswith("FLOAT") else int
        return tuple(map(as_read, value)) if kind.endswith("S") else as_read(value)


def array(proto: Any, where: str) -> np.ndarray:
    """The values of a tensor, which has to hold as many as its shape says."""
    onnx = require("onnx", "from_onnx")
    shape = tuple(proto.dims)
    if proto.data_location == onnx.TensorProto.EXTERNAL or proto.external_data:
        cure = "Put them in: onnx.save(onnx.load(path), one_file)."
        raise refuse(where[:80], "keeps its values in another file, which is not opened.", cure)
    if proto.data_type not in KINDS:
        raise refuse(where[:80], f"is a tensor of element type {proto.data_type}, which is not read.")
    dtype = np.dtype(KINDS[proto.data_type])
    count = 1
    for size in shape:
        count *= size
    fields = (proto.float_data, proto.int32_data, proto.int64_data, proto.double_data)
    held = len(proto.raw_data) // dtype.itemsize if proto.raw_data else sum(len(field) for field in fields)
    if any(size < 0 for size in shape) or count != held:
        raise refuse(where[:80], f"is said to be a tensor of shape {shape}, but the file holds {held} values for it.")
    return np.array(onnx.numpy_helper.to_array(proto)).reshape(shape)


def _given(proto: Any) -> Given:
    if not proto.type.HasField("tensor_type"):
        raise refuse(f"the input {proto.name[:80]}", "is no tensor.")
    tensor = proto.type.tensor_type
    if tensor.elem_type not in KINDS:
        raise refuse(f"the input {proto.name[:80]}", f"has element type {tensor.elem_type}, which is not read.")
    if not tensor.HasField("shape"):
        return Given(proto.name, tensor.elem_type, None)
    sizes: list[int | str | None] = []
    for axis in tensor.shape.dim:
        size = axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None
        sizes.append(None if isinstance(size, int) and size < 0 else size)
    return Given(proto.name, tensor.elem_type, tuple(sizes))


def _refuse_twice(graph: Graph) -> None:
    """A value that two nodes define, or one that is asked for before it is made: the file is no graph."""
    made = {given.name for given in graph.inputs} | set(graph.constants)
    own = graph.defines()
    for node in graph.nodes:
        names: Iterable[str] = [name for name in node.outputs if name]
        if twice := next((name for name in names if name in made), None):
            raise refuse(node.title, f"makes {twice[:80]}, which is there already.")
        if early := next((name for name in node.reads() if name in own and name not in made), None):
            raise refuse(node.title, f"needs {early[:80]}, which is made after it.")
        made |= set(names)
