"""Carries series from files to batches."""
