"""The encoder: from a model to a stream, and updates."""
