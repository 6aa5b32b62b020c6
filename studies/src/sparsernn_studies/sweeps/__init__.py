"""Sweeps: many runs of one recipe with other settings, on this machine or on a cluster."""
