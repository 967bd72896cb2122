"""Optimizers that torch lacks, parameter groups, schedules."""
