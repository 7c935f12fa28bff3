"""What the listener delivers, what capturing costs: ``python -m benchmarks.listener --help``."""
