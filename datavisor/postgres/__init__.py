"""Django's PostgreSQL backend, with transactions that take turns and threads that outlive their connections."""
