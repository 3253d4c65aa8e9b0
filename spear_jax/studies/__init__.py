"""Runs grids of configs and puts their results in tables."""
