"""What should go: pruning, L1 and group lasso behind one contract."""
