"""Receivers that do nothing, for all models of the suite: as Django has them, or critical ones."""
