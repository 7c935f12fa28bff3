"""The tests: ``unit`` needs no database, the others run on a PostgreSQL that they start."""
