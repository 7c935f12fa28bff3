"""The shop's own signals."""

from django.dispatch import Signal

#: Sent after the commit for every order that was shipped, with ``order``.
order_fulfilled = Signal()
