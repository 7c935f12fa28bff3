"""Commands that travel in front of the next statement, in the same message to the server.

bulksafe puts each write into a transaction or a savepoint of its own. Sent as messages of their
own, BEGIN, SAVEPOINT and RELEASE would each cost a round trip.
"""

from bulksafe.joining.commands import (
    Commands,
    begun_commands_of,
    commands_of,
    exec_command,
    start_query,
)
from bulksafe.joining.cursors import Following, Joining, Tail, allows_tail, following

__all__ = [
    "Commands",
    "Following",
    "Joining",
    "Tail",
    "allows_tail",
    "begun_commands_of",
    "commands_of",
    "exec_command",
    "following",
    "start_query",
]
