"""From values to levels: step sizes and quantizers."""
