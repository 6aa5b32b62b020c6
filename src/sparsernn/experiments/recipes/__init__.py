"""The recipes: each returns the rows of one table."""
