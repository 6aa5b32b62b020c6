"""The promise, tested: readers are found through any forward, and surgery is exact."""
