"""The same shop with its rules in signal receivers, as Django projects write them today.

It is what the demo and the benchmarks compare bulksafe with.
"""
