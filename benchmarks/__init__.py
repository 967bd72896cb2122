"""Side-by-side timings against peers, each peer in the same run. See README.md for the rules."""
