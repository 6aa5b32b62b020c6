"""The tasks: data and a metric each."""
