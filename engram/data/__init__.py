"""Sources to batches plus Spec: tables, images, built-in sets."""
