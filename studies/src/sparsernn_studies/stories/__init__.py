"""Our own tables: the demonstration, spoken digits, targets, blocks, Reber's grammar."""
