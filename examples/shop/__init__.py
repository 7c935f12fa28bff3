"""A small shop whose rules are bulksafe invariants."""
