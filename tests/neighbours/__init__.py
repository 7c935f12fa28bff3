"""The tests of other packages, on their own receivers and on the same receivers made critical.

``python -m tests.neighbours --help``
"""
