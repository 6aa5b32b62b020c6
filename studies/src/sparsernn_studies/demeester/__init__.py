"""Demeester et al.: sparse from the start, in tagging, reciting and language models."""
