"""Writing samples and their tags to files: a module per kind of file, listed in ``vlm.formats.registry``."""
