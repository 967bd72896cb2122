"""One architecture per file: `from engram.models.mlp import MLP`. A model imports torch and `engram.nn` only."""
