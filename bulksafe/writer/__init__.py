"""Critical receivers in the writer's transaction.

The way of a write: a path of Django's (:mod:`.paths`, :mod:`.bulk_paths`), or a statement that the
connection's :class:`.watch.Watch` sees, runs inside a scope (:mod:`.scopes`). The database buffers
the changes and says so; they are taken (:mod:`.taking`), put together and delivered
(:mod:`.delivering`). Receivers of ``pre_*`` signals run before that: on objects in hand
(:mod:`.in_hand`), on staged rows (:mod:`.staged`), or on what a first execution has changed
(:mod:`.through`). What Django itself sends comes in through :mod:`.connecting`.
"""
