"""The commands nnr-encode, nnr-decode and nnr-info: thin, and the only place that prints."""
