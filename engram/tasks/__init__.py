"""Objectives: classify, regress."""
