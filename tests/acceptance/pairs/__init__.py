"""Pairs of tables: one has critical receivers and bulk writes, the other plain ones and saves.

A *case* is a kind of receiver with the rows that it is tried on, a *path* a way to write with its
per-row equivalent. Each case goes through each path that fits it.
"""
