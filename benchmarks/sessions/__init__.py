"""What receivers do to other sessions, and to memory: ``python -m benchmarks.sessions``."""
