"""The decoder: from streams to tensors, models and modules."""
