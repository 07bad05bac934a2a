"""What a network sees: inputs, and the moments of what its layers take."""
