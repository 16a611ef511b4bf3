"""The life of a tagging run. Its row in the database is the truth that every viewer, in every process, reads."""
