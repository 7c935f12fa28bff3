"""The outbox: where captured changes wait for their receivers, and how far each queue has come."""
