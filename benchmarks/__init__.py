"""Recorded training runs and the scripts that measure stopping rules on them."""
