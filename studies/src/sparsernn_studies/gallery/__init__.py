"""Models that ship trained inside public packages, made smaller by their own outputs: one file a model."""
