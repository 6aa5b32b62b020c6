"""sparsernn makes recurrent networks small and fast, and proves it."""

from .structure.trace import trace as trace
from .surgery.compact import compact as compact

__version__ = "0.1.0"
