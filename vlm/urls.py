"""The page's addresses."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import URLPattern, URLResolver, include, path

import vlm.converters  # noqa: F401  (<id:…>)
from vlm.views import accounts, autotag, browse, importing, media, pixels, runs, samples, settings, trust, vocabulary

dataset_urlpatterns: list[URLPattern | URLResolver] = [
    path("", browse.dataset, name="dataset"),
    path("cells", browse.cells, name="cells"),
    path("tags", browse.edit_tags, name="edit_tags"),
    path("edits", browse.edits, name="edits"),
    path("edits/<id:edit_id>/undo", browse.edit_undo, name="edit_undo"),
    path("export", browse.export, name="export"),
    path("views", browse.saved_views, name="saved_views"),
    path("auto-tag", autotag.auto_tag, name="auto_tag"),
    path("auto-tag/count", autotag.auto_tag_count, name="auto_tag_count"),
    path("auto-tag/progress", autotag.auto_tag_progress, name="auto_tag_progress"),
    path("runs", runs.run_list, name="runs"),
    path("settings", settings.dataset_settings, name="dataset_settings"),
    path("pixels", pixels.pixels, name="pixels"),
    path("measure", pixels.measure, name="measure"),
    path("measure/cancel", pixels.measure_cancel, name="measure_cancel"),
    path("review", trust.review, name="review"),
    path("review/draw", trust.review_draw, name="review_draw"),
    path("review/decide", trust.review_decide, name="review_decide"),
    path("labels", trust.labels_import, name="labels_import"),
    path("accuracy", trust.accuracy, name="accuracy"),
    path("accuracy/promise", trust.promise, name="promise"),
    path("accuracy.csv", trust.accuracy_csv, name="accuracy_csv"),
    path("samples/<id:sample_id>/", samples.sample, name="sample"),
    path("samples/<id:sample_id>/thumbnail/<id:size>", media.thumbnail, name="thumbnail"),
    path("samples/<id:sample_id>/image", media.image, name="image"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", browse.datasets, name="datasets"),
    path("healthz", accounts.healthz, name="healthz"),
    path("accounts/login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("accounts/password/", accounts.ChangePassword.as_view(), name="change_password"),
    path("datasets/<id:dataset_id>/", include(dataset_urlpatterns)),
    path("runs/", runs.active_runs, name="active_runs"),
    path("runs/<id:run_id>/", runs.run, name="run"),
    path("runs/<id:run_id>/against/<id:other_id>/", trust.runs_compared, name="runs_compared"),
    path("runs/<id:run_id>/cancel", runs.run_cancel, name="run_cancel"),
    path("runs/<id:run_id>/resume", runs.run_resume, name="run_resume"),
    path("runs/<id:run_id>/revert", runs.run_revert, name="run_revert"),
    path("runs/<id:run_id>/thresholds", runs.run_thresholds, name="run_thresholds"),
    path("vocabulary/", vocabulary.vocabulary, name="vocabulary"),
    path("vocabulary/new", vocabulary.dimension_new, name="dimension_new"),
    path("vocabulary/file", vocabulary.vocabulary_export, name="vocabulary_export"),
    path("vocabulary/import", vocabulary.vocabulary_import, name="vocabulary_import"),
    path("vocabulary/reset", vocabulary.vocabulary_reset, name="vocabulary_reset"),
    path("vocabulary/changes/<id:change_id>/undo", vocabulary.vocabulary_undo, name="vocabulary_undo"),
    path("vocabulary/trials/<id:trial_id>/", vocabulary.trial, name="trial"),
    path("vocabulary/dimensions/<slug:name>/", vocabulary.dimension, name="dimension"),
    path("vocabulary/dimensions/<slug:name>/rename", vocabulary.word_rename, name="word_rename"),
    path("vocabulary/dimensions/<slug:name>/remove", vocabulary.dimension_remove, name="dimension_remove"),
    path("vocabulary/dimensions/<slug:name>/move", vocabulary.dimension_move, name="dimension_move"),
    path("vocabulary/dimensions/<slug:name>/switch", vocabulary.dimension_switch, name="dimension_switch"),
    path("imports/new", importing.import_new, name="import_new"),
    path("imports/folders", importing.import_folders, name="import_folders"),
    path("imports/<id:job_id>/", importing.import_job, name="import_job"),
]
