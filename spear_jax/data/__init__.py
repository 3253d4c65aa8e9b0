"""From recorded series to batches of bins: NumPy, run once."""
