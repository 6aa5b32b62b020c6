"""Ways to a size in training: which groups are out at each step, until the choice is final. One path a file."""
