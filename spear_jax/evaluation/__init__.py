"""Judges scores: metrics, thresholds, alarms, controls, results.json."""
