"""bulksafe's own objects in the database: their names and schema."""

from __future__ import annotations

from bulksafe.outbox.store import Store

TABLES = (
    "bulksafe_outbox",
    "bulksafe_outbox_0",
    "bulksafe_outbox_1",
    "bulksafe_outbox_2",
    "bulksafe_cursor",
    "bulksafe_started",
    "bulksafe_parked",
    "bulksafe_worker",
    "bulksafe_outbox_identity",
)
SEQUENCES = (
    "bulksafe_outbox_seq",
    "bulksafe_outbox_slot",
    "bulksafe_call_seq",
    "bulksafe_parked_id_seq",
)
INDEXES = (
    "bulksafe_outbox_0_bucket_seq",
    "bulksafe_outbox_1_bucket_seq",
    "bulksafe_outbox_2_bucket_seq",
    "bulksafe_cursor_pkey",
    "bulksafe_started_pkey",
    "bulksafe_parked_pkey",
    "bulksafe_parked_row",
    "bulksafe_parked_due",
    "bulksafe_parked_call",
    "bulksafe_worker_pkey",
    "bulksafe_outbox_identity_pkey",
)
#: The objects of the first migration.
OUTBOX = (*TABLES, *SEQUENCES, *INDEXES)

BUFFERS = ("bulksafe_buffer", "bulksafe_staged", "bulksafe_ticket", "bulksafe_receiver")
#: The functions that a writer's session calls.
WRITING = (
    "bulksafe_take",
    "bulksafe_prefix",
    "bulksafe_collect",
    "bulksafe_collected",
    "bulksafe_stage",
    "bulksafe_staged_rows",
    "bulksafe_unstage",
)
#: The functions that open and close tickets.
TICKETING = ("bulksafe_open", "bulksafe_added", "bulksafe_close", "bulksafe_ticket_open")
#: The functions that record violations.
RECORDING = ("bulksafe_record", "bulksafe_record_image", "bulksafe_record_in_lane")
FUNCTIONS = (*WRITING, *TICKETING, *RECORDING)
#: The objects of the second migration.
TICKETS = (
    *BUFFERS,
    *WRITING,
    *TICKETING,
    "bulksafe_buffer_xid_seq",
    "bulksafe_staged_n_seq",
    "bulksafe_staged_pkey",
    "bulksafe_receiver_pkey",
)

#: The objects of the third migration.
VIOLATIONS = (
    "bulksafe_violation",
    "bulksafe_violation_limit",
    "bulksafe_violation_pkey",
    *RECORDING,
)

ALL = (*OUTBOX, *TICKETS, *VIOLATIONS)


def home(using: str, table: str = TABLES[0]) -> str | None:
    """The schema that ``table`` is in, or None; a temporary table of its name does not count."""
    found = Store(using).rows("home", {"table": table})
    return str(found[0][0]) if found else None
