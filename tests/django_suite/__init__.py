"""Django's own test suite on PostgreSQL, without bulksafe and with it: the outcomes are the same.

``python -m tests.django_suite --help``
"""
