"""From levels to bytes and back."""
