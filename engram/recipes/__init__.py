"""One experiment per file; found by file name, imported on demand."""
