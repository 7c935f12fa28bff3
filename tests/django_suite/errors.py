"""What ends the program before it has anything to compare."""


class SuiteError(RuntimeError):
    """Django's tests could not be had, or could not be run."""
