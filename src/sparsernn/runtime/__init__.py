"""Run it: CPU kernels for what is left."""
