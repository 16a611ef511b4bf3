"""What is run by hand: pictures of the page, the demonstration checkpoint, the reference."""
