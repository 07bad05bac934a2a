"""Data units: tensors to units and back, one pair of modules for each kind."""
