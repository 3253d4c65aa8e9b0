"""Loads frozen language models."""
