"""The same LSTM stack in other engines, as functions of no arguments on a fixed input."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .measure import Call, Engine


def layers_of(model: Any) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """weight_ih, weight_hh, bias_ih, bias_hh of each layer of a one-directional stack."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [tuple(getattr(model, f"{name}_l{n}").detach() for name in names) for n in range(model.num_layers)]  # type: ignore[misc]


def same(call: Call, target: float | None = None) -> Engine:
    """An engine without a state: each call gives the whole output."""
    return Engine(call, call, target)


def lstm(model: Any, x: Tensor, target: float | None = None) -> Engine:
    """torch.nn.LSTM, x (T, B, I); a single step carries its state."""
    if len(x) > 1:
        return same(lambda: model(x)[0], target)
    carried = [model(x)[1]]

    def step() -> Tensor:
        y, carried[0] = model(x, carried[0])
        return y

    return Engine(step, lambda: model(x)[0], target)


def cells(model: nn.Module, x: Tensor, target: float | None = None) -> Engine:
    """torch.nn.LSTMCell layer by layer, one step that carries its state."""
    stack = []
    for ih, hh, bias_ih, bias_hh in layers_of(model):
        cell = nn.LSTMCell(ih.shape[1], hh.shape[1])
        cell.load_state_dict({"weight_ih": ih, "weight_hh": hh, "bias_ih": bias_ih, "bias_hh": bias_hh})
        stack.append(cell.eval())
    carried: list[Any] = [None] * len(stack)

    def step() -> Tensor:
        y = x[0]
        for n, cell in enumerate(stack):
            carried[n] = cell(y, carried[n])
            y = carried[n][0]
        return y

    def check() -> Tensor:
        carried[:] = [None] * len(stack)
        return step()

    return Engine(step, check, target)


def addmm(model: nn.Module, x: Tensor, target: float | None = None) -> Engine:
    """One matrix product a step and layer, weights side by side and transposed beforehand; input product hoisted."""
    stack = [(ih.t().contiguous(), hh.t().contiguous(), a + b) for ih, hh, a, b in layers_of(model)]

    def call() -> Tensor:
        y = x
        for ih, hh, bias in stack:
            gates = torch.addmm(bias, y.reshape(-1, y.shape[2]), ih).view(*y.shape[:2], -1)
            h = c = y.new_zeros(y.shape[1], hh.shape[0])
            outputs = []
            for pre in gates:
                i, f, g, o = torch.addmm(pre, h, hh).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                outputs.append(h)
            y = torch.stack(outputs)
        return y

    return same(call, target)


def torch_int8(model: nn.Module, x: Tensor, target: float | None = None) -> Engine:
    """torch's dynamic int8 quantisation of nn.LSTM."""
    import warnings

    # Layers of unequal widths are a stack of nn.LSTMs to torch.
    stack = nn.Sequential(*(_one_layer(*weights) for weights in layers_of(model)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(stack, {nn.LSTM}, dtype=torch.qint8)
    carried: list[Any] = [None] * len(small)

    def call() -> Tensor:
        y = x
        for layer in small:
            y = layer(y)[0]
        return y

    def step() -> Tensor:
        y = x
        for n, layer in enumerate(small):
            y, carried[n] = layer(y, carried[n])
        return y

    return Engine(step if len(x) == 1 else call, call, target)


def _one_layer(ih: Tensor, hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> nn.LSTM:
    layer = nn.LSTM(ih.shape[1], hh.shape[1])
    values = {"weight_ih_l0": ih, "weight_hh_l0": hh, "bias_ih_l0": bias_ih, "bias_hh_l0": bias_hh}
    layer.load_state_dict(values)
    return layer.eval()


def openvino(model: nn.Module, x: Tensor, target: float | None = None) -> dict[str, Engine]:
    """OpenVINO in float32 under its name; nothing where it is not installed."""
    try:
        import openvino as ov
    except ImportError:
        left_out("OpenVINO", "pip install -r benchmarks/engines-requirements.txt")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _write_onnx(model, path)
        core = ov.Core()
        network = core.read_model(path)
        network.reshape(list(x.shape))
        options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(network, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(x.numpy(), shared_memory=True))

    def call() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data

    return {"OpenVINO": Engine(call, lambda: call().copy(), target)}


@functools.cache
def left_out(name: str, command: str) -> None:
    """Say, once, that an engine is not installed."""
    print(f"{name} is not installed and left out: {command}")


def onnx(model: nn.Module, x: Tensor, target: float | None = None, *, int8: bool = False) -> Engine:
    """onnxruntime with its LSTM operator; `int8`: its dynamic quantisation."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _write_onnx(model, path)
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(path, path.with_name("int8.onnx"), weight_type=QuantType.QInt8)
            path = path.with_name("int8.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return same(lambda: session.run(None, feed)[0], target)


def _write_onnx(model: nn.Module, path: Path) -> None:
    import onnx as proto
    from onnx import TensorProto, helper, numpy_helper

    def regate(value: np.ndarray) -> np.ndarray:
        i, f, g, o = np.split(value, 4)
        return np.concatenate([i, o, f, g])  # ONNX's order of gates

    nodes, weights, name = [], [], "x"
    for n, (ih, hh, bias_ih, bias_hh) in enumerate(layers_of(model)):
        both = np.concatenate([regate(bias_ih.numpy()), regate(bias_hh.numpy())])
        for key, value in (("W", regate(ih.numpy())), ("R", regate(hh.numpy())), ("B", both)):
            weights.append(numpy_helper.from_array(np.ascontiguousarray(value[None]), f"{key}{n}"))
        inputs = [name, f"W{n}", f"R{n}", f"B{n}"]
        nodes.append(helper.make_node("LSTM", inputs, [f"y{n}"], f"lstm{n}", hidden_size=hh.shape[1]))
        nodes.append(helper.make_node("Squeeze", [f"y{n}", "axis"], [f"h{n}"], f"squeeze{n}"))
        name = f"h{n}"
    weights.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", layers_of(model)[0][0].shape[1]])
    y = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "lstm", [x], [y], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    proto.save(made, str(path))
