"""Reads own tables: files, live rows, arrays."""
