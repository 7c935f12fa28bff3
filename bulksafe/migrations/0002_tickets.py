from django.db import migrations

from bulksafe.outbox.schema import CreateTickets


class Migration(migrations.Migration):
    """What receivers in the writer's transaction need."""

    dependencies = [("bulksafe", "0001_outbox")]
    operations = [CreateTickets(version="v1")]
