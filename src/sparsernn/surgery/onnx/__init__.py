"""A model as an ONNX file: an input for every tensor of its call, one node a recurrent layer, checked by running it."""

from .export import export_onnx as export_onnx
