"""Critical receivers in the writer's transaction.

The way of a write: a path of Django's (:mod:`.paths`, :mod:`.bulk_paths`), or a statement that the
connection's :class:`.watch.Watch` sees, runs inside a scope (:mod:`.scopes`) of the connection's
session (:mod:`.connection_session`). The database buffers the changes and sends a notice; they are
taken (:mod:`.taking`), combined (:mod:`.combining`) and delivered (:mod:`.delivering`). ``pre_*``
receivers run before that: on objects in hand (:mod:`.in_hand`), on staged rows (:mod:`.staged`), or
on the changes of a first execution (:mod:`.through`). Signals that Django sends itself come in
through :mod:`.connecting`.
"""
