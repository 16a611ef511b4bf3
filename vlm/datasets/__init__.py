"""The life of a data set: imported, imported again, deleted."""
