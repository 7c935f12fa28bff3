import bulksafe.compiler
import bulksafe.operations
from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('bulksafe', '0001_outbox'),
        ('shop', '0001_initial'),
    ]

    operations = [
        bulksafe.operations.AddTrigger(
            model='shop.order',
            trigger=bulksafe.compiler.CaptureTrigger(invariant='shop.Order:bulksafe_capture', operations={'INSERT': [{'all_rows': False, 'conditions': {'198f8ae701': '("new"."status" = \'shipped\' AND NOT (false))', '49a6f5a1c0': 'NOT (false)', '867cb924d7': '("new"."status" = \'paid\' AND NOT (false))'}}], 'UPDATE': [{'all_rows': False, 'conditions': {'422bc6cc52': '("new"."status" = \'shipped\' AND NOT ("old"."status" = \'shipped\'))', '52f0d82044': 'NOT ("old"."status" = ("new"."status"))', 'f48c81e6c8': '("new"."status" = \'paid\' AND NOT ("old"."status" = \'paid\'))'}}]}, pgid='pgtrigger_bulksafe_capture_54800', version='v1'),
        ),
    ]
