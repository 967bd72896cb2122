"""What a run folder holds; safetensors in and out; exact resume."""
