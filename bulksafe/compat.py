"""Everything that depends on a version of Django, Python or PostgreSQL."""

from __future__ import annotations

import django

DJANGO_6 = django.VERSION >= (6, 0)

#: As ``connection.pg_version`` has it.
OLDEST_POSTGRESQL = 140000
