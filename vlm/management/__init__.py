"""The door from the command line."""
