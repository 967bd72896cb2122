"""The loop: fit, update, average, mesh, diagnose."""
