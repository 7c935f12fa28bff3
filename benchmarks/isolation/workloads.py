"""The work of the receivers in the queue “bad”. Does not import Django."""

#: The queue of the receivers that misbehave, and those whose latency is measured.
BAD = "bad"
MEASURED = ("inside", "outside")

#: By the name that ``--deed`` takes: what the receiver does.
DEEDS = {
    "hang": "hangs in Python",
    "exit": "calls os._exit()",
    "C": "sleeps in C code, with the interpreter's lock",
    "lock": "waits for a lock that another session holds",
    "memory": "eats memory",
}

#: Of the receivers that misbehave: one in a transaction and one outside, for each row.
RECEIVERS = 2
MAX_ATTEMPTS = 2
TIMEOUT = 1
