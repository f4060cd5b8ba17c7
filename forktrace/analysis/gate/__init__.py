"""tables -> a verdict: which limits a recording keeps, breaks, or cannot tell of."""
