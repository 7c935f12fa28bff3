from django.db import migrations

from bulksafe.outbox.schema import CreateOutbox


class Migration(migrations.Migration):
    """bulksafe's own tables."""

    initial = True
    dependencies = []
    operations = [CreateOutbox(version="v1")]
