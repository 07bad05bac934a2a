"""What is coded: named tensors, their dtypes, and how PyTorch holds them."""
