"""One module per command; what they share is in ``_shared``."""
