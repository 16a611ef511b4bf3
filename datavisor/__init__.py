"""DataVisor: auto-tag image data sets with a vision-language model on your own machine."""

__version__ = "0.1.0"
