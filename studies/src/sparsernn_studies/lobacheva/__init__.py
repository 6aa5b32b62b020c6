"""Lobacheva et al.: groups of gates, units and weights removed by Bayesian sparsification."""
