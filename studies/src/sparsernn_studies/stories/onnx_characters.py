"""A character LSTM in onnxruntime with dynamic int8 quantisation, for comparison: whole sequences and step by step."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsernn.extras import require
from sparsernn.files import write_atomically
from sparsernn.surgery.onnx import export_onnx

from ..models import CharacterLSTM
from ..progress import quiet


def _fold(path: Path) -> None:
    """Fold constants in place: only weights that are plain constants are quantised."""
    ort = require("onnxruntime", "the comparison with onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded = path.with_name("folded.onnx")
    options.optimized_model_filepath = str(folded)
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    folded.replace(path)


class OnnxCharacters(nn.Module):
    """The model in `path` with the interface of `dense`, which it was made from; one thread."""

    def __init__(self, dense: CharacterLSTM, path: Path) -> None:
        super().__init__()
        ort = require("onnxruntime", "the comparison with onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.dense, self.lstm = dense, dense.lstm
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in self.session.get_inputs()]

    @staticmethod
    def write(dense: CharacterLSTM, path: Path) -> None:
        """Export `dense`, quantise its weights to int8 and write it to `path`."""
        quantization = require("onnxruntime.quantization", "the comparison with onnxruntime")
        with tempfile.TemporaryDirectory() as folder:
            whole, small = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
            example = (torch.zeros(3, 2, dtype=torch.long), dense.zero_state(2))
            export_onnx(dense, whole, example)
            _fold(whole)
            with quiet():  # it advises to run a preparation, which has been done
                quantization.quantize_dynamic(whole, small, weight_type=quantization.QuantType.QInt8)
            write_atomically(path, small.read_bytes())

    def zero_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """As `dense` gives it."""
        return self.dense.zero_state(batch)

    def forward(self, x_TB: Tensor, state: tuple[Tensor, Tensor] | None = None) -> Any:
        """Logits_TBV, with a state also the new one, as CharacterLSTM gives them."""
        given = self.zero_state(x_TB.shape[1]) if state is None else state
        found = self.session.run(None, dict(zip(self.names, [x.numpy() for x in (x_TB, *given)])))
        logits, h, c = (torch.from_numpy(value) for value in found)
        return logits if state is None else (logits, (h, c))

    def stream(self, batch: int = 1) -> OnnxStream:
        """One time step at a time, state carried."""
        return OnnxStream(self.session, self.names, self.zero_state(batch))


class OnnxStream:
    """`step(x_B)`: logits (batch, symbols), overwritten by the next step. Memory is bound once, as in production; the
    two pairs of states change places after every step."""

    def __init__(self, session: Any, names: list[str], states: tuple[Tensor, Tensor]) -> None:
        ort = require("onnxruntime", "the comparison with onnxruntime")
        outputs = [given.name for given in session.get_outputs()]
        batch, symbols = states[0].shape[1], session.get_outputs()[0].shape[-1]
        self._x, self._y = torch.zeros(1, batch, dtype=torch.long), torch.zeros(1, batch, symbols)
        self._kept = [[state.clone() for state in states] for _ in range(2)]
        value = ort.OrtValue.ortvalue_from_numpy  # which shares the memory of the array
        self._values = [[value(state.numpy()) for state in pair] for pair in self._kept]
        x, y = value(self._x.numpy()), value(self._y.numpy())
        self._bindings = []
        for before, after in (self._values, self._values[::-1]):
            binding = session.io_binding()
            for name, given in zip(names, (x, *before)):
                binding.bind_ortvalue_input(name, given)
            for name, taken in zip(outputs, (y, *after)):
                binding.bind_ortvalue_output(name, taken)
            self._bindings.append(binding)
        self._run = session.run_with_iobinding

    def step(self, x_B: Tensor) -> Tensor:
        self._x[0] = x_B
        self._run(self._bindings[0])
        self._bindings.reverse()
        return self._y[0]
