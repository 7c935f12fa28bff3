"""What one queue's receivers do to the latency of the others: ``python -m benchmarks.isolation``.

It is the Django app of the measured site, too: its models, and its receivers.
"""
