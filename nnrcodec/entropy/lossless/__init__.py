"""Bit patterns to bytes and back, without loss: fields of bits, stored or with rANS."""
