"""Receivers of the kinds that public projects have. Importing the package registers them."""

from tests.acceptance.pairs.practices import accounts

__all__ = ["accounts"]
