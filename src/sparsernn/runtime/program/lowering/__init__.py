"""From the operations of a step program to calls of compiled kernels."""
