"""An ONNX file as a plain PyTorch model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from . import layers, recurrent
from .builder import Builder
from .check import check
from .folding import Folded, first_line
from .graph import refuse
from .model import OnnxModule
from .opening import content_of, open_graph
from .stepwise import with_cells

# Imported for the builders that they put into the table.
FILLED = (layers, recurrent)


def from_onnx(path: str | Path, *, inputs: Mapping[str, Any] | None = None) -> OnnxModule:
    """The model in the ONNX file `path`, in eval mode, for `fold`, `compact`, `accelerate`, streams and `export_c`.

    LSTM, GRU and RNN nodes become `nn.LSTM`, `nn.GRU` and `nn.RNN`, steps that were written out as gates become
    `nn.LSTMCell`, `nn.GRUCell` and `nn.RNNCell`; products, convolutions, norms and tables become torch's layers, under
    the names of the file's weights or nodes. Other tensors of floating point are parameters, too. `forward` takes the
    file's inputs, in its order or by name, and gives its output, or a tuple of them; states are inputs and outputs as
    in the file. `explain()` lists what it runs.

    inputs: values of inputs to fix, by name, such as `{"sr": 16000}` where a file branches on its sampling rate.

    Nothing in the file is executed: its graph is data that known operators run. Before it returns, the model and
    onnxruntime are run on random inputs at two sizes of each axis that may change; their outputs agree to 1e-5 of the
    largest number (at least 1), or as closely as float32 lets the file itself. Where onnxruntime is not installed, or
    does not run the file, a warning says that this was not checked.

    Raises ValueError, by node, for operators, attributes and element types that are not read, for external data,
    functions of the file, damaged files, and where onnxruntime gives something else; OSError where the file can't be
    read; ImportError without the extra `onnx`.
    """
    path = Path(path)
    content = content_of(path)
    graph = open_graph(content, str(path))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            folded = Folded(graph, inputs or {})
            model = Builder(folded, with_cells).model()
        except (LookupError, AttributeError, TypeError, ArithmeticError, ValueError) as error:
            if str(error).startswith("from_onnx: "):
                raise
            # A node without its inputs, say.
            raise refuse(str(path), f"is not as its operators say ({first_line(error)}).") from None
        fixed = {name: folded.constants[name] for name in inputs or {}}
        check(model, content, fixed, str(path))
    return model
