"""Files of others as plain PyTorch modules: an ONNX graph is read, its weights become layers, the rest is run."""

from .from_onnx import from_onnx as from_onnx
