"""Searches for levels: dependent quantization, error feedback."""
