"""A table with plain receivers and one with critical receivers, for each kind of receiver."""

from django.db import models


class Row(models.Model):
    owner = models.IntegerField(default=0)
    amount = models.IntegerField(default=0)
    note = models.CharField(max_length=40, default="")

    class Meta:
        abstract = True

    def __str__(self):
        return str(self.pk)


class Bare(Row):
    """No receivers."""


class PlainPost(Row):
    """``post_save`` and ``post_delete``."""


class CriticalPost(Row):
    """The same."""


class PlainOld(Row):
    """The same receivers as ``CriticalOld``, which Django gives no old row."""


class CriticalOld(Row):
    """Receivers that take the old row: the changes are buffered."""


class PlainPre(Row):
    """``pre_save`` and ``pre_delete``."""


class CriticalPre(Row):
    """The same."""
