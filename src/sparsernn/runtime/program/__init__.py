"""Step programs: what a causal model does in one time step, as typed operations over named buffers."""
