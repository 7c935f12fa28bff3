class LiteStaysEmpty:
    """Keeps every table out of the SQLite database: it is there to be routed around."""

    def allow_migrate(self, db, app_label, **hints):
        return False if db == "lite" else None
