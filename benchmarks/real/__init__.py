"""Models that packages ship, rebuilt as users write them, with the weights of the packages: one file for each."""
