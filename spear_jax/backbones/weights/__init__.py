"""Finds, reads, names and converts the weights of backbones."""
