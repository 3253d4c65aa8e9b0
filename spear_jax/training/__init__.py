"""Trains prompt and head."""
