"""What Django's ORM holds: data sets, runs, imports, the vocabulary and saved views.

Samples and tags are in DuckDB (``vlm.samples``); the ids of ``Dataset`` and ``TaggingRun`` are their keys there.
"""

from collections.abc import Collection, Sequence

from django.conf import settings
from django.db import models
from django.db.models import Q
from knox.models import AbstractAuthToken

from vlm.errors import Refusal
from vlm.formats import import_choices
from vlm.vocabulary import KINDS, Only, Vocabulary
from vlm.vocabulary import Dimension as AskedDimension


class Dataset(models.Model):
    """A folder of images that was imported."""

    name = models.CharField(max_length=200, unique=True)
    root = models.CharField(max_length=4096, help_text="The folder below which all its files lie.")
    format = models.CharField(max_length=16, choices=import_choices)
    sample_count = models.PositiveIntegerField(default=0, editable=False)
    missing_count = models.PositiveIntegerField(default=0, editable=False)
    created = models.DateTimeField(auto_now_add=True)
    imported = models.DateTimeField(null=True, blank=True, editable=False)
    # Whoever brings it in for the first time; see ``vlm.jobs``. Until then it holds nothing.
    worker = models.CharField(max_length=100, blank=True, editable=False)
    heartbeat = models.DateTimeField(null=True, blank=True, editable=False)
    # Grows when somebody changes what its pages show, in whatever process; a run's own row says what the run changes.
    changes = models.PositiveBigIntegerField(default=0, editable=False)

    class Meta:
        ordering = ["name"]
        permissions = [
            ("autotag_dataset", "Can auto-tag a data set"),
            ("edit_tags", "Can edit the tags of samples"),
            ("import_dataset", "Can import data sets"),
        ]

    def __str__(self) -> str:
        return self.name


class StoreBinding(models.Model):
    """The one row that says which store of samples belongs to this database: their numbers mean the same data sets."""

    store_id = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.store_id


class Errand(models.Model):
    """What the store has still to do, so that it says what this database says already; gone once it is done."""

    key = models.CharField(max_length=32, unique=True)  # by which the store remembers what it did
    about = models.CharField(max_length=60, unique=True)  # one change of a thing at a time
    what = models.CharField(max_length=16)
    values = models.JSONField(default=dict)
    worker = models.CharField(max_length=100)
    heartbeat = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.what} ({self.about})"


class Dimension(models.Model):
    """One question of the vocabulary; ``vlm.vocabulary.Dimension`` says what the fields mean."""

    name = models.SlugField(max_length=60, unique=True)
    question = models.TextField()
    kind = models.CharField(max_length=16, choices=KINDS, default="one-of")
    position = models.PositiveSmallIntegerField(default=0)
    enabled = models.BooleanField(default=True, help_text="Asked in new runs.")
    label = models.CharField(max_length=60, blank=True, help_text="How the page calls it; the name if empty.")
    levels = models.JSONField(
        default=list, blank=True, help_text="Words of an ordered dimension, lowest first, if they stand otherwise."
    )
    wordings = models.JSONField(default=list, blank=True, help_text="Further wordings of the question.")
    spellings = models.JSONField(default=dict, blank=True, help_text="Word → what else counts as it.")
    labels = models.JSONField(default=dict, blank=True, help_text="Word → how the page calls it.")
    only_dimension = models.CharField(max_length=60, blank=True, help_text="Tags are made only where this dimension")
    only_words = models.JSONField(default=list, blank=True, help_text="has one of these words.")

    class Meta:
        ordering = ["position", "name"]
        permissions = [("change_vocabulary", "Can edit the vocabulary")]

    def __str__(self) -> str:
        return self.name

    def asked(self, words: Sequence[str] | None = None) -> AskedDimension:
        """Return what is asked, with other ``words`` if they are given. Raises ``VocabularyError`` where that cannot be."""
        only = Only(self.only_dimension, tuple(self.only_words)) if self.only_dimension else None
        return AskedDimension(
            name=self.name,
            question=self.question,
            words=tuple((word.text for word in self.words.all()) if words is None else words),
            kind=self.kind,  # type: ignore[arg-type]
            spellings={word: tuple(others) for word, others in self.spellings.items()},
            wordings=tuple(self.wordings),
            only=only,
            label=self.label,
            labels=dict(self.labels),
            levels=tuple(self.levels),
        )

    def forget_words_but(self, words: Collection[str]) -> None:
        """Drop what belongs to words that are gone; levels that do not name each word are those of the words' order."""
        answers = ("yes", "no") if self.kind == "yes-no" else words
        self.spellings = {word: others for word, others in self.spellings.items() if word in answers}
        self.labels = {word: label for word, label in self.labels.items() if word in words}
        self.levels = [word for word in self.levels if word in words]
        if len(self.levels) != len(words):
            self.levels = []


class Word(models.Model):
    """A word that is allowed as an answer to a dimension's question."""

    dimension = models.ForeignKey(Dimension, on_delete=models.CASCADE, related_name="words")
    text = models.CharField(max_length=60)
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["position", "id"]
        constraints = [models.UniqueConstraint("dimension", "text", name="word_once_per_dimension")]

    def __str__(self) -> str:
        return self.text


def current_vocabulary() -> Vocabulary:
    """Return the enabled dimensions with their words.

    Raises:
        VocabularyError: nothing is enabled, or a dimension lacks words.
    """
    dimensions = Dimension.objects.filter(enabled=True).prefetch_related("words")
    return Vocabulary(tuple(dimension.asked() for dimension in dimensions))


def words_by_dimension() -> dict[str, tuple[str, ...]]:
    """Return the words of every dimension, in the vocabulary's order, switched off ones included: their tags may be there."""
    dimensions = Dimension.objects.prefetch_related("words")
    return {dimension.name: tuple(word.text for word in dimension.words.all()) for dimension in dimensions}


class VocabularyChange(models.Model):
    """An edit of the vocabulary, with what was there before: it can be taken back."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    created = models.DateTimeField(auto_now_add=True)
    text = models.CharField(max_length=500)
    before = models.JSONField()
    after = models.JSONField()
    edits = models.JSONField(default=list, help_text="What it changed in the ledger of tags.")
    renamed = models.JSONField(default=dict, help_text="Dimensions that got another name, old to new.")
    undone = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.text


class Job(models.Model):
    """What the row of any background job says of who works on it; see ``vlm.jobs``."""

    started_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    worker = models.CharField(max_length=100, blank=True, editable=False)
    error = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    heartbeat = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True
        ordering = ["-id"]


class TaggingRun(Job):
    """One pass of the model over the samples of a scope. This row is the truth that every viewer reads."""

    class Status(models.TextChoices):
        QUEUED = "queued", "queued"
        LOADING = "loading", "loading the model"
        RUNNING = "running", "running"
        CANCELLING = "cancelling", "cancelling"
        CANCELLED = "cancelled", "cancelled"
        COMPLETED = "completed", "completed"
        FAILED = "failed", "failed"
        INTERRUPTED = "interrupted", "interrupted"

    ACTIVE = (Status.QUEUED, Status.LOADING, Status.RUNNING, Status.CANCELLING)
    RESUMABLE = (Status.CANCELLED, Status.FAILED, Status.INTERRUPTED)

    class Scope(models.TextChoices):
        MISSING = "missing", "images without an answer"
        ALL = "all", "all images"
        FAILED = "failed", "images that failed before"

    class Mode(models.TextChoices):
        SCORE = "score", "score the allowed words"
        GENERATE = "generate", "generate and match"

    class Origin(models.TextChoices):
        PAGE = "page", "page"
        ADMIN = "admin", "admin"
        COMMAND = "command", "command"
        WATCH = "watch", "watch"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="runs")
    scope = models.CharField(max_length=16, choices=Scope, default=Scope.MISSING)
    filter_query = models.TextField(
        blank=True, help_text="The filter within which the scope applies, as in the page's address."
    )
    sample_limit = models.PositiveIntegerField(null=True, blank=True)
    failed_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="retries")
    vocabulary_json = models.JSONField(default=list)
    vocabulary_hash = models.CharField(max_length=64)

    model = models.CharField(max_length=4096)
    revision = models.CharField(max_length=100, blank=True)
    device = models.CharField(max_length=32, blank=True)
    dtype = models.CharField(max_length=16, blank=True)
    detail = models.CharField(max_length=8, default="full")
    full_share = models.FloatField(
        null=True, blank=True, help_text="Of the images, how many are asked again at full detail where it is “auto”."
    )
    mode = models.CharField(max_length=16, choices=Mode, default=Mode.SCORE)
    batch_size = models.PositiveIntegerField(default=0)
    min_probability = models.FloatField(default=0.5)
    min_mass = models.FloatField(default=0.5)
    thresholds = models.JSONField(
        default=dict, blank=True, help_text="Dimension → its own least probability, where one was applied."
    )
    blind = models.JSONField(
        default=dict, blank=True, editable=False, help_text="The answers to a grey image, and what was asked of whom."
    )
    priors = models.JSONField(
        default=dict,
        blank=True,
        editable=False,
        help_text="Dimension → each word's prior, and whether answers need their picture.",
    )
    same_detail = models.BooleanField(
        default=False, help_text="Answers of another detail or number format count as missing."
    )
    one_per_group = models.BooleanField(
        default=False,
        help_text="Of images that are nearly the same one is asked, and the others take its answers over.",
    )

    workers = models.CharField(
        max_length=200, blank=True, help_text="Where it works, as for --workers; empty for the model of this process."
    )
    crew = models.JSONField(
        default=list, blank=True, editable=False, help_text="How its workers are, or were at its end."
    )

    origin = models.CharField(max_length=16, choices=Origin, default=Origin.PAGE)
    status = models.CharField(max_length=16, choices=Status, default=Status.QUEUED)
    download_done = models.BigIntegerField(default=0)
    download_total = models.BigIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    processed = models.PositiveIntegerField(default=0)
    tagged = models.PositiveIntegerField(default=0)
    discarded = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    shared = models.PositiveIntegerField(
        default=0, help_text="Of the processed images, how many took another's answers."
    )
    rate = models.FloatField(default=0)
    seconds = models.FloatField(default=0)
    started = models.DateTimeField(null=True, blank=True)
    reverted = models.DateTimeField(null=True, blank=True)

    class Meta(Job.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["dataset"],
                condition=Q(status__in=["queued", "loading", "running", "cancelling"]),
                name="one_active_run_per_dataset",
            )
        ]

    cause: Refusal | None = None  # what it failed for, where the execution that failed is at hand

    def __str__(self) -> str:
        return f"run {self.pk} of {self.dataset.name}"

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.from_json(self.vocabulary_json)

    @property
    def is_active(self) -> bool:
        return self.status in self.ACTIVE


class Trial(Job):
    """A question asked of some images before it is saved."""

    class Status(models.TextChoices):
        RUNNING = "running", "asking"
        COMPLETED = "completed", "completed"
        FAILED = "failed", "failed"

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="trials")
    name = models.CharField(max_length=60)
    replaces = models.CharField(max_length=60, blank=True)
    asked = models.JSONField(help_text="The draft.")
    tried_with = models.JSONField(help_text="The draft, with the wordings that were tried.")
    sample_ids = models.JSONField(default=list)
    results = models.JSONField(default=list)
    status = models.CharField(max_length=16, choices=Status, default=Status.RUNNING)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"trial of {self.name}"

    @property
    def active(self) -> bool:
        return self.status == self.Status.RUNNING


class ImportJob(Job):
    """An import that goes on in the background of the server."""

    class Status(models.TextChoices):
        RUNNING = "running", "running"
        COMPLETED = "completed", "completed"
        FAILED = "failed", "failed"

    path = models.CharField(max_length=4096)
    name = models.CharField(max_length=200)
    format = models.CharField(max_length=16, default="auto")
    status = models.CharField(max_length=16, choices=Status, default=Status.RUNNING)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    skipped = models.JSONField(default=list)
    summary = models.JSONField(default=dict)  # how many samples were new, known, changed and so on
    dataset = models.ForeignKey(Dataset, null=True, blank=True, on_delete=models.SET_NULL)

    def __str__(self) -> str:
        return f"import of {self.path}"


class Watch(models.Model):
    """A data set whose folder the server looks into every so often; see ``vlm.datasets.watching``."""

    dataset = models.OneToOneField(Dataset, on_delete=models.CASCADE, related_name="watch")
    seconds = models.PositiveIntegerField(help_text="Between two looks.")
    tag = models.BooleanField(default=True, help_text="Tag what is new.")
    started_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    due = models.DateTimeField(db_index=True)
    looked = models.DateTimeField(null=True, blank=True, editable=False)
    changed = models.DateTimeField(null=True, blank=True, editable=False)  # the last look that found something
    summary = models.JSONField(default=dict, editable=False)  # what it found
    error = models.TextField(blank=True, editable=False)
    worker = models.CharField(max_length=100, blank=True, editable=False)
    heartbeat = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["dataset__name"]
        verbose_name_plural = "watches"

    def __str__(self) -> str:
        return f"watch of {self.dataset.name}"


class MeasureJob(Job):
    """The measuring of a data set's images, without the model."""

    class Status(models.TextChoices):
        RUNNING = "running", "measuring"
        CANCELLING = "cancelling", "cancelling"
        CANCELLED = "cancelled", "cancelled"
        COMPLETED = "completed", "completed"
        FAILED = "failed", "failed"
        INTERRUPTED = "interrupted", "interrupted"

    ACTIVE = (Status.RUNNING, Status.CANCELLING)

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="measure_jobs")
    status = models.CharField(max_length=16, choices=Status, default=Status.RUNNING)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    problems = models.JSONField(default=list)  # the first images that could not be read, with the reason

    class Meta(Job.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["dataset"],
                condition=Q(status__in=["running", "cancelling"]),
                name="one_measuring_per_dataset",
            )
        ]

    def __str__(self) -> str:
        return f"measuring of {self.dataset.name}"

    @property
    def is_active(self) -> bool:
        return self.status in self.ACTIVE


class FrozenSlice(models.Model):
    """Samples that were frozen under a name, with what had decided them; which they are is in the store."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="frozen_slices")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    name = models.CharField(max_length=100)
    query = models.TextField(blank=True, help_text="The filter that had these samples.")
    vocabulary_json = models.JSONField(default=list)
    runs = models.JSONField(default=list, help_text="The runs that had tagged until then.")
    samples = models.PositiveIntegerField(default=0)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint("dataset", "name", name="frozen_slice_name_once")]

    def __str__(self) -> str:
        return self.name


class ApiToken(AbstractAuthToken):  # type: ignore[misc]  # knox ships no types
    """By which a program acts for a user: the hash, the beginning and the end come from knox, which never keeps the text."""

    name = models.CharField(max_length=100)
    scopes = models.JSONField(default=list)
    last_used = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return self.name


class TagNote(models.Model):
    """What users mean by a tag of their own in a data set."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="tag_notes")
    tag = models.CharField(max_length=200)
    text = models.CharField(max_length=500)

    class Meta:
        constraints = [models.UniqueConstraint("dataset", "tag", name="tag_note_once")]

    def __str__(self) -> str:
        return f"{self.tag}: {self.text}"


class TableColumns(models.Model):
    """Which columns a user wants to see of a data set's table, in their order; ``services.tables`` says which there are."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    names = models.JSONField(default=list)

    class Meta:
        constraints = [models.UniqueConstraint("dataset", "user", name="table_columns_once")]

    def __str__(self) -> str:
        return ", ".join(self.names)


class SavedView(models.Model):
    """A filter of a data set that a user gave a name."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="saved_views")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    name = models.CharField(max_length=100)
    query = models.TextField(blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint("dataset", "user", "name", name="saved_view_name_once")]

    def __str__(self) -> str:
        return self.name
