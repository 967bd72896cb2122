"""Predictors and the loops around them."""
