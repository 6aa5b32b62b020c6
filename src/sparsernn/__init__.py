"""sparsernn makes recurrent networks small and fast, and proves it."""

__version__ = "0.1.0"
