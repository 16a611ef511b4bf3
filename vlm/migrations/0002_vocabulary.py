"""Fill the vocabulary that DataVisor comes with: as it was in the first release, whatever the code says by now."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

VOCABULARY = (
    (
        "lighting",
        "Describe the lighting: is this image dark, dim, bright, or normal? One word only.",
        ("dark", "dim", "bright", "normal"),
    ),
    ("clarity", "Is this image blurry, sharp, or noisy? One word only.", ("blurry", "sharp", "noisy")),
    ("setting", "Is this scene indoor or outdoor? One word only.", ("indoor", "outdoor")),
    (
        "weather",
        "What weather or time: sunny, cloudy, rainy, foggy, snowy, night, or day? One word.",
        ("sunny", "cloudy", "rainy", "foggy", "snowy", "night", "day"),
    ),
    (
        "density",
        "How crowded is this scene: empty, sparse, moderate, or crowded? One word only.",
        ("empty", "sparse", "moderate", "crowded"),
    ),
)


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    dimensions = apps.get_model("vlm", "Dimension")
    words = apps.get_model("vlm", "Word")
    if dimensions.objects.exists():  # somebody went back and comes again: what is there is theirs
        return
    for position, (name, question, allowed) in enumerate(VOCABULARY):
        dimension = dimensions.objects.create(name=name, question=question, position=position)
        words.objects.bulk_create(
            words(dimension=dimension, text=text, position=place) for place, text in enumerate(allowed)
        )


class Migration(migrations.Migration):
    dependencies = [("vlm", "0001_initial")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
