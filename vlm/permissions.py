"""The rights that a user can have, and what somebody without one is told."""

VIEW = "vlm.view_dataset"
TAG = "vlm.autotag_dataset"
EDIT = "vlm.edit_tags"
IMPORT = "vlm.import_dataset"

REFUSALS = {
    VIEW: "You may not see data sets.",
    TAG: "You may not auto-tag data sets.",
    EDIT: "You may not edit tags.",
    IMPORT: "You may not import data sets.",
}
