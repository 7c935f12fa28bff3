from django.db import migrations

from bulksafe.outbox.schema import CreateTickets


class Migration(migrations.Migration):
    """Tables and functions for in-transaction receivers."""

    dependencies = [("bulksafe", "0001_outbox")]
    operations = [CreateTickets(version="v1")]
