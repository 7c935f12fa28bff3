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
            trigger=bulksafe.compiler.CaptureTrigger(invariant='shop.Refund:bulksafe_capture', operations={'DELETE': [{'refusing': True}], 'INSERT': [{'refusing': True}], 'UPDATE': [{'refusing': True}]}, pgid='pgtrigger_bulksafe_capture_2aede', truncate='TRUNCATE leaves no rows behind that receivers for deletion could be called for. Delete the rows, or mute the capture for this transaction.', version='v1'),
        ),
    ]
