"""Modules that are sparse by design, or returned by surgery."""
