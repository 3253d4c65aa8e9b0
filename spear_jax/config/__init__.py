"""Every field of a config, its default, and what is allowed in it."""
