"""What can go: cells and their gates, groups of parameter slices, and who reads each unit."""
