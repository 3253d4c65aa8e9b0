"""Holds the trained artifact and scores new series with it."""
