"""``make demo``: every write path against every kind of rule, without bulksafe and with it.

``breaches`` says how each rule can be broken and how to count the rows that break it, ``paths`` how
each write path writes. ``matrix`` tries one with the other and says what came of it, and ``report``
shows that. ``__main__`` is the command.
"""
