"""Kernels of step programs, beside those of recurrent layers and products that stand one folder up."""
