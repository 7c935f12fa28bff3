"""Errors that end the program before the comparison."""


class SuiteError(RuntimeError):
    """Django's tests could not be had, or could not be run."""
