from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('vlm', '0022_scopes_of_images'),
    ]

    operations = [
        migrations.AddField(
            model_name='taggingrun',
            name='workers',
            field=models.CharField(blank=True, help_text='Where it works, as for --workers; empty for the model of this process.', max_length=200),
        ),
        migrations.AddField(
            model_name='taggingrun',
            name='crew',
            field=models.JSONField(blank=True, default=list, editable=False, help_text='How its workers are, or were at its end.'),
        ),
    ]
