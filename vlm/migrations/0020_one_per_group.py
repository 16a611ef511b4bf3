from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('vlm', '0019_changes_of_data_sets'),
    ]

    operations = [
        migrations.AddField(
            model_name='taggingrun',
            name='one_per_group',
            field=models.BooleanField(default=False, help_text='Of images that are nearly the same one is asked, and the others take its answers over.'),
        ),
        migrations.AddField(
            model_name='taggingrun',
            name='shared',
            field=models.PositiveIntegerField(default=0, help_text="Of the processed images, how many took another's answers."),
        ),
    ]
