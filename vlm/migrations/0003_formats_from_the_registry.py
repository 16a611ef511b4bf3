import vlm.formats.registry
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("vlm", "0002_vocabulary")]

    operations = [
        migrations.AlterField(
            model_name="dataset",
            name="format",
            field=models.CharField(choices=vlm.formats.registry.import_choices, max_length=16),
        ),
    ]
