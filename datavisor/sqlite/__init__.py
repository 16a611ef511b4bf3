"""Django's SQLite backend, for a file that is private and stays readable when the disk is full."""
