class LiteStaysEmpty:
    """Keeps every table out of the SQLite database, which tests routing only."""

    def allow_migrate(self, db, app_label, **hints):
        return False if db == "lite" else None
