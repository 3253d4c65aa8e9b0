"""TFDS builders, one folder each; imported only where a data set is downloaded."""
