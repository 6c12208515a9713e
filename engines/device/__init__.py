"""Memory and work on a GPU."""
