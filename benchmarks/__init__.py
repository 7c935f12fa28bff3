"""What invariants cost, and what the alternatives cost: ``python -m benchmarks --help``."""
