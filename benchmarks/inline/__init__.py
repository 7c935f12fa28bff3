"""What receivers in the writer's transaction cost: ``python -m benchmarks.inline --help``."""
