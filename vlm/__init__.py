"""Auto-tagging of image data sets with a vision-language model: the one Django application."""
