"""What each operator of ONNX computes: one short function an operator, in a table."""
