"""Side by side with other engines, in one run: `python -m benchmarks [names]`."""
