"""Tools for tables that have rows already: find rows that break a rule, and repair them."""
