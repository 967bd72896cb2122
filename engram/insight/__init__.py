"""What happens inside: summary, cost, metrics."""
