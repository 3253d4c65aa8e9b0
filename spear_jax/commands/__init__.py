"""Implements the modes of the command line, one module each."""
