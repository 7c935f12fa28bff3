"""Receivers of the kinds that public projects have. Importing the package registers them."""

from tests.acceptance.pairs.practices import (
    accounts,
    belongings,
    comments,
    documents,
    invoices,
    pages,
    payments,
    products,
    traces,
)

__all__ = [
    "accounts",
    "belongings",
    "comments",
    "documents",
    "invoices",
    "pages",
    "payments",
    "products",
    "traces",
]
