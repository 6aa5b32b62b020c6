"""Lobacheva et al. (arXiv 1911.05585): figures of the Bayesian rows, from the logs of the authors' code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]

IMDB: Rows = {  # after 1000 epochs
    "bayes-w": {"test_accuracy": 0.841, "compression": 1209, "words": 5054, "units": 9, "gates": 20},
    "bayes-wn": {"test_accuracy": 0.8401, "compression": 16676, "words": 316, "units": 7, "gates": 19},
    "bayes-wgn": {"test_accuracy": 0.8387, "compression": 18457, "words": 307, "units": 7, "gates": 8},
}
AGNEWS: Rows = {  # after 150 epochs
    "bayes-w": {"test_accuracy": 0.8901, "compression": 350, "words": 5737, "units": 65, "gates": 72},
    "bayes-wn": {"test_accuracy": 0.8855, "compression": 645, "words": 2351, "units": 17, "gates": 62},
    "bayes-wgn": {"test_accuracy": 0.8841, "compression": 640, "words": 2295, "units": 14, "gates": 39},
}
CHARACTERS: Rows = {  # after 250 epochs; dense: the best of them
    "dense": {"test_bpc": 1.4546, "valid_bpc": 1.4982, "compression": 1, "words": 50, "units": 1000, "gates": 4000},
    "bayes-w": {"test_bpc": 1.429, "compression": 7.9, "words": 50, "units": 431, "gates": 1718},
    "bayes-wn": {"test_bpc": 1.4297, "compression": 10.0, "words": 50, "units": 390, "gates": 1560},
    "bayes-wgn": {"test_bpc": 1.425, "compression": 9.8, "words": 50, "units": 404, "gates": 1563},
}
WORDS: Rows = {  # after 150 epochs; dense: the best of them
    "dense": {
        "test_perplexity": 129.3,
        "valid_perplexity": 135.6,
        "compression": 1,
        "words": 10000,
        "units": 256,
        "gates": 1024,
    },
    "bayes-w": {"test_perplexity": 109.2, "compression": 22.1, "words": 9990, "units": 156, "gates": 288},
    "bayes-wn": {"test_perplexity": 111.0, "compression": 23.5, "words": 9992, "units": 127, "gates": 276},
    "bayes-wgn": {"test_perplexity": 116.5, "compression": 24.5, "words": 9972, "units": 117, "gates": 201},
}
