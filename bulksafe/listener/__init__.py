"""The daemon that runs after-commit receivers."""
