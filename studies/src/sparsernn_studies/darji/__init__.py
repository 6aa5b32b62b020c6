"""Darji and Stier: random graphs as recurrent nets, and pruning them."""
