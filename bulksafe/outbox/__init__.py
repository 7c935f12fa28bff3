"""The outbox: stores captured changes for their receivers, and the position of each queue."""
