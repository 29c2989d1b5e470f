"""Estimators over numbers; they know numpy and scipy, and nothing of training."""
