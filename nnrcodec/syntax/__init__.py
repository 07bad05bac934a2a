"""The units of the standard: records, and one function for each syntax table."""
