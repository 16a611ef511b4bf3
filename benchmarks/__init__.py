"""What takes how long, and how much memory: of the engine, the store, the page and a whole run."""
