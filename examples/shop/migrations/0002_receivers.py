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
            trigger=bulksafe.compiler.Trigger(functions=[{'body': 'capture', 'function': 'pgtrigger_bulksafe_capture_54800', 'settings': '', 'streams': [{'all_rows': False, 'by_row': '(VALUES (0)) AS v', 'by_statement': 'bulksafe_new AS "new"', 'conditions': {'198f8ae701': '("new"."status" = \'shipped\' AND NOT (false))', '49a6f5a1c0': 'NOT (false)', '867cb924d7': '("new"."status" = \'paid\' AND NOT (false))'}, 'joins': [], 'key': '"new"."id"::text', 'new': 'to_jsonb("new".*)', 'old': 'NULL::jsonb', 'operation': 'I', 'part': 'NULLIF(bulksafe.part, bulksafe.source)', 'template': 'capture_rows'}], 'template': 'capture_function'}, {'body': 'capture', 'function': 'bulksafe_bulksafe_capture_54800_update', 'settings': '', 'streams': [{'all_rows': False, 'by_row': '(VALUES (0)) AS v', 'by_statement': '(SELECT row_number() OVER () AS "bulksafe#", * FROM bulksafe_old) AS "old" FULL JOIN (SELECT row_number() OVER () AS "bulksafe#", * FROM bulksafe_new) AS "new" USING ("bulksafe#")', 'conditions': {'422bc6cc52': '("new"."status" = \'shipped\' AND NOT ("old"."status" = \'shipped\'))', '52f0d82044': 'NOT ("old"."status" = ("new"."status"))', 'f48c81e6c8': '("new"."status" = \'paid\' AND NOT ("old"."status" = \'paid\'))'}, 'joins': [], 'key': '"old"."id"::text', 'new': 'to_jsonb("new".*)', 'old': 'to_jsonb("old".*)', 'operation': 'U', 'part': 'NULLIF(bulksafe.part, bulksafe.source)', 'template': 'capture_rows'}], 'template': 'capture_function'}], invariant='shop.Order:bulksafe_capture', name='bulksafe_capture', pgid='pgtrigger_bulksafe_capture_54800', triggers=[{'events': 'INSERT', 'function': 'pgtrigger_bulksafe_capture_54800', 'partitioned_template': 'capture_trigger_partitioned', 'template': 'capture_trigger', 'transition': 'NEW TABLE AS bulksafe_new', 'trigger': 'pgtrigger_bulksafe_capture_54800'}, {'events': 'UPDATE', 'function': 'bulksafe_bulksafe_capture_54800_update', 'partitioned_template': 'capture_trigger_partitioned', 'template': 'capture_trigger', 'transition': 'OLD TABLE AS bulksafe_old NEW TABLE AS bulksafe_new', 'trigger': 'bulksafe_bulksafe_capture_54800_update'}], version='v1'),
        ),
    ]
