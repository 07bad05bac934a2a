"""The container record, and a whole stream as units."""
