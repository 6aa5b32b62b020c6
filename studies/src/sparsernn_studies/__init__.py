"""Tasks, recipes and the training loop that reproduce the papers' tables."""
