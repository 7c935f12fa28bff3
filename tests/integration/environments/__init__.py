"""Receivers in the writer's transaction, in each environment that Django writes from."""
