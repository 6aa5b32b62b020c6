"""What Stier and Granitzer (arXiv 2107.12917) found, worked out again from their published measurements.

A figure for each cell, in the order of CELLS; the gated nets' masks were scrambled there.
"""

from __future__ import annotations

CELLS = {"tanh": "tanh RNN", "relu": "relu RNN", "lstm": "LSTM", "gru": "GRU"}
# Mean test accuracy of a family's graphs.
ACCURACY = {"ba": (0.842, 0.728, 0.915, 0.928), "ws": (0.893, 0.829, 0.976, 0.984)}
# Pearson's r with test accuracy.
CORRELATIONS = {
    "nodes": (0.40, 0.44, 0.44, 0.49),
    "edges": (0.38, 0.43, 0.42, 0.49),
    "source_nodes": (0.35, 0.47, 0.57, 0.74),
    "degree_var": (-0.28, -0.26, -0.39, -0.58),
    "closeness_var": (-0.46, -0.39, -0.51, -0.67),
    "node_betweenness_var": (-0.49, -0.41, -0.56, -0.52),
    "edge_betweenness_var": (-0.34, -0.30, -0.44, -0.26),
    "layers": (0.25, 0.30, 0.28, 0.34),
    "density": (0.29, 0.15, 0.29, 0.34),
    "average_path": (-0.27, -0.25, -0.36, -0.23),
}
R2 = {
    "ridge": (0.479, 0.361, 0.372, 0.672),
    "forest": (0.432, 0.615, 0.579, 0.876),
    "adaboost": (0.357, 0.535, 0.595, 0.783),
}
