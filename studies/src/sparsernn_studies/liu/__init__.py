"""Liu et al., Selfish sparse RNN training (arXiv 2101.09048): nets that are sparse from the first step on."""
