"""Puts a soft prompt and a head on a frozen backbone."""
