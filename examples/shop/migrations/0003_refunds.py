import bulksafe.compiler
import bulksafe.operations
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('bulksafe', '0002_tickets'),
        ('shop', '0002_receivers'),
    ]

    operations = [
        migrations.CreateModel(
            name='RefundTotal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('amount', models.DecimalField(decimal_places=2, default=0, max_digits=12)),
                ('customer', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='refunded', to='shop.customer')),
            ],
            options={
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='Refund',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.CharField(default='', editable=False, max_length=20)),
                ('amount', models.DecimalField(decimal_places=2, max_digits=12)),
                ('reason', models.CharField(choices=[('damaged', 'Damaged'), ('late', 'Late'), ('returned', 'Returned')], default='returned', max_length=10)),
                ('approved', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('order', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='refunds', to='shop.order')),
            ],
            options={
                'abstract': False,
                'constraints': [models.UniqueConstraint(condition=models.Q(('number', ''), _negated=True), fields=('number',), name='shop_refund_number_once')],
            },
        ),
        bulksafe.operations.AddTrigger(
            model='shop.refund',
            trigger=bulksafe.compiler.Trigger(functions=[{'body': 'capture_with_buffer', 'function': 'pgtrigger_bulksafe_capture_2aede', 'settings': '', 'streams': [{'all_rows': True, 'by_row': '(VALUES (0)) AS v', 'by_statement': 'bulksafe_new AS "new"', 'conditions': {}, 'joins': [], 'key': '"new"."id"::text', 'new': 'to_jsonb("new".*)', 'old': 'NULL::jsonb', 'operation': 'I', 'part': 'NULLIF(bulksafe.part, bulksafe.source)', 'refusing': True, 'template': 'buffer_rows'}], 'template': 'capture_function'}, {'body': 'capture_with_buffer', 'function': 'bulksafe_bulksafe_capture_2aede_update', 'settings': '', 'streams': [{'all_rows': True, 'by_row': '(VALUES (0)) AS v', 'by_statement': '(SELECT row_number() OVER () AS "bulksafe#", * FROM bulksafe_old) AS "old" FULL JOIN (SELECT row_number() OVER () AS "bulksafe#", * FROM bulksafe_new) AS "new" USING ("bulksafe#")', 'conditions': {}, 'joins': [], 'key': '"old"."id"::text', 'new': 'to_jsonb("new".*)', 'old': 'to_jsonb("old".*)', 'operation': 'U', 'part': 'NULLIF(bulksafe.part, bulksafe.source)', 'refusing': True, 'template': 'buffer_rows'}], 'template': 'capture_function'}, {'body': 'capture_with_buffer', 'function': 'bulksafe_bulksafe_capture_2aede_delete', 'settings': '', 'streams': [{'all_rows': True, 'by_row': '(VALUES (0)) AS v', 'by_statement': 'bulksafe_old AS "old"', 'conditions': {}, 'joins': [], 'key': '"old"."id"::text', 'new': 'NULL::jsonb', 'old': 'to_jsonb("old".*)', 'operation': 'D', 'part': 'NULLIF(bulksafe.part, bulksafe.source)', 'refusing': True, 'template': 'buffer_rows'}], 'template': 'capture_function'}, {'body': 'capture_truncate', 'function': 'bulksafe_bulksafe_capture_2aede_truncate', 'message': 'TRUNCATE leaves no rows behind that receivers for deletion could be called for. Delete the rows, or mute the capture for this transaction.', 'security': '', 'template': 'function'}], invariant='shop.Refund:bulksafe_capture', name='bulksafe_capture', pgid='pgtrigger_bulksafe_capture_2aede', triggers=[{'events': 'INSERT', 'function': 'pgtrigger_bulksafe_capture_2aede', 'partitioned_template': 'capture_trigger_partitioned', 'template': 'capture_trigger', 'transition': 'NEW TABLE AS bulksafe_new', 'trigger': 'pgtrigger_bulksafe_capture_2aede'}, {'events': 'UPDATE', 'function': 'bulksafe_bulksafe_capture_2aede_update', 'partitioned_template': 'capture_trigger_partitioned', 'template': 'capture_trigger', 'transition': 'OLD TABLE AS bulksafe_old NEW TABLE AS bulksafe_new', 'trigger': 'bulksafe_bulksafe_capture_2aede_update'}, {'events': 'DELETE', 'function': 'bulksafe_bulksafe_capture_2aede_delete', 'partitioned_template': 'capture_trigger_partitioned', 'template': 'capture_trigger', 'transition': 'OLD TABLE AS bulksafe_old', 'trigger': 'bulksafe_bulksafe_capture_2aede_delete'}, {'function': 'bulksafe_bulksafe_capture_2aede_truncate', 'template': 'truncate_trigger', 'trigger': 'bulksafe_bulksafe_capture_2aede_truncate'}], version='v1'),
        ),
    ]
