"""Writes that bypass Django's wrappers: receivers still run, or the commit is refused."""
