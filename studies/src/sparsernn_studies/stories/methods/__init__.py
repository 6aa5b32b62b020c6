"""Which method when: every way to make a net small, at equal sizes, on four tasks."""
