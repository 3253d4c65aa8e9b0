"""Finds, reads and converts the weights of backbones."""
