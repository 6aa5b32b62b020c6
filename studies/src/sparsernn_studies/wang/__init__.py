"""Wang: weights of recurrent nets pruned by magnitude."""
