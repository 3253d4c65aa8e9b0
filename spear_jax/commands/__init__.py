"""Runs one mode of the command line, a module each."""
