"""Topology carriage: how the tensors of a network are used, as data that cannot run code."""
