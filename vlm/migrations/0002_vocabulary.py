"""Fill the vocabulary that DataVisor comes with."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from vlm.vocabulary import DEFAULT_VOCABULARY


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    dimensions = apps.get_model("vlm", "Dimension")
    words = apps.get_model("vlm", "Word")
    for position, asked in enumerate(DEFAULT_VOCABULARY):
        dimension = dimensions.objects.create(name=asked.name, question=asked.question, position=position)
        words.objects.bulk_create(
            words(dimension=dimension, text=text, position=place) for place, text in enumerate(asked.words)
        )


class Migration(migrations.Migration):
    dependencies = [("vlm", "0001_initial")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
