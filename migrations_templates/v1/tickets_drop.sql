-- Takes the buffer, the tickets and the names away.

DROP TABLE IF EXISTS bulksafe_ticket CASCADE;
DROP FUNCTION IF EXISTS bulksafe_take(oid, "char", bigint), bulksafe_prefix(), bulksafe_ticket_open();
DROP TABLE IF EXISTS bulksafe_buffer, bulksafe_receiver;
