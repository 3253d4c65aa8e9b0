"""Frozen language models: their modules, their weights, and the vectors that stand for bins."""
