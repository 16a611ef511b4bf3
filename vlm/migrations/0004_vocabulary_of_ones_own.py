"""Give a dimension its kind, further spellings and wordings, names for the page, and a condition."""

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


# As they come with DataVisor: their words stand in an order. Tags stay what they are.
ORDERED = {
    "lighting": (["dark", "dim", "bright", "normal"], ["dark", "dim", "normal", "bright"]),
    "density": (["empty", "sparse", "moderate", "crowded"], []),
}


def order(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    words = apps.get_model("vlm", "Word")
    for dimension in apps.get_model("vlm", "Dimension").objects.filter(name__in=ORDERED):
        listed, levels = ORDERED[dimension.name]
        if list(words.objects.filter(dimension=dimension).order_by("position", "id").values_list("text", flat=True)) == listed:
            dimension.kind, dimension.levels = "ordered", levels
            dimension.save()


class Migration(migrations.Migration):

    dependencies = [
        ('vlm', '0003_formats_from_the_registry'),
    ]

    operations = [
        migrations.AddField(
            model_name='dimension',
            name='kind',
            field=models.CharField(choices=[('one-of', 'one of the words'), ('ordered', 'one of the words, which stand in an order'), ('yes-no', 'yes or no')], default='one-of', max_length=16),
        ),
        migrations.AddField(
            model_name='dimension',
            name='label',
            field=models.CharField(blank=True, help_text='How the page calls it; the name if empty.', max_length=60),
        ),
        migrations.AddField(
            model_name='dimension',
            name='labels',
            field=models.JSONField(blank=True, default=dict, help_text='Word → how the page calls it.'),
        ),
        migrations.AddField(
            model_name='dimension',
            name='levels',
            field=models.JSONField(blank=True, default=list, help_text='Words of an ordered dimension, lowest first, if they stand otherwise.'),
        ),
        migrations.AddField(
            model_name='dimension',
            name='only_dimension',
            field=models.CharField(blank=True, help_text='Tags are made only where this dimension', max_length=60),
        ),
        migrations.AddField(
            model_name='dimension',
            name='only_words',
            field=models.JSONField(blank=True, default=list, help_text='has one of these words.'),
        ),
        migrations.AddField(
            model_name='dimension',
            name='spellings',
            field=models.JSONField(blank=True, default=dict, help_text='Word → what else counts as it.'),
        ),
        migrations.AddField(
            model_name='dimension',
            name='wordings',
            field=models.JSONField(blank=True, default=list, help_text='Further wordings of the question.'),
        ),
        migrations.RunPython(order, migrations.RunPython.noop),
    ]
