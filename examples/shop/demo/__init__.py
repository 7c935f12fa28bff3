"""``make demo``: what holds without bulksafe and with it, tried out.

Rules: ``breaches`` says how each rule can be broken and how to count the rows that break it,
``paths`` how each write path writes. ``matrix`` tries one with the other and says what came of it.

Receivers: ``telling`` writes and counts what the receivers did, with a listener that is killed on
the way. ``processes`` has that listener and the service that a receiver calls, and ``tally``
decides what was lost.

``report`` shows both, and ``__main__`` is the command.
"""
