from django.db import migrations

from bulksafe.outbox.schema import CreateViolations


class Migration(migrations.Migration):
    """The table of observed violations."""

    dependencies = [("bulksafe", "0002_tickets")]
    operations = [CreateViolations(version="v1")]
