"""``make demo``: what holds without bulksafe and with it, tried out.

Rules: ``breaches`` says how each rule can be broken and how to count the rows that break it,
``paths`` how each write path writes. ``matrix`` tries one with the other and says what came of it.

Receivers: ``delivery`` writes and counts what the receivers did, with a listener that is killed on
the way. ``processes`` has that listener and the service that a receiver calls, and ``tally``
decides what was lost.

Receivers in the writer's transaction: ``refunding`` writes refunds in both shops, rightly and with
a mistake, and counts with ``tally`` what the receivers of each have done.

``rules_report``, ``delivery_report`` and ``refunding_report`` show a part each with what is in
``layout``, ``report`` the whole, and ``bars`` how far it is. ``__main__`` is the command.
"""
