"""Reads the user's tables: files, live rows and arrays."""
