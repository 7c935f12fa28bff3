"""The cases by subject. Importing the package registers them."""

from tests.acceptance.pairs.cases import (
    database,
    inheritance,
    looking,
    other_tables,
    own_row,
    rules,
    savepoints,
    siblings,
)

__all__ = [
    "database",
    "inheritance",
    "looking",
    "other_tables",
    "own_row",
    "rules",
    "savepoints",
    "siblings",
]
