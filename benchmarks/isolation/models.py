"""The rows whose receivers behave, those whose receivers do not, and a table to lock."""

from django.db import models


class Ping(models.Model):
    """Its receivers note the time, in each of the measured queues."""

    def __str__(self):
        return str(self.pk)


class Misdeed(models.Model):
    """Its receivers do ``deed``."""

    deed = models.CharField(max_length=20)

    def __str__(self):
        return self.deed


class Locked(models.Model):
    """Another session holds its lock."""

    def __str__(self):
        return str(self.pk)
