-- Takes bulksafe's own tables away.

DROP TABLE IF EXISTS bulksafe_outbox, bulksafe_cursor, bulksafe_started, bulksafe_parked, bulksafe_worker,
    bulksafe_outbox_identity;
DROP SEQUENCE IF EXISTS bulksafe_outbox_seq, bulksafe_outbox_slot, bulksafe_call_seq;
