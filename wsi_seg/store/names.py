"""Owns the names of files and folders in a collection."""

# Metadata of a zarr v3 group or array.
METADATA = "zarr.json"

# Folder for files that are not part of zarr. It has the metadata of an array without pixels, so
# zarr neither lists members in it nor warns of unknown files.
OWN = ".wsi_seg"
# Unfinished groups of a collection or a slide, which readers ignore.
PARTIAL = f"{OWN}/partial"
# Damaged stores, moved by `wsi-seg verify`.
QUARANTINE = f"{OWN}/quarantine"
# Commands that are running in a collection or a run.
RUN = f"{OWN}/run"
# Parts of an unfinished group that processes have claimed, and their progress.
SHARED = f"{OWN}/shared"
# Progress of the processes that share a command on a collection.
TURNS = f"{OWN}/turns"
# File that marks an unfinished group that replaces a finished one.
AGAIN = ".again"

# Finished units of a slide; predictions keep it.
JOURNAL = f"{OWN}/journal.jsonl"
# Digest of each file of a group.
DIGESTS = f"{OWN}/digests.json"
# Position, size and class of each object of a label.
OBJECTS = f"{OWN}/objects.json"

# Labels of a slide, and the names of labels that wsi_seg writes.
LABELS = "labels"
TISSUE = "tissue"
# Class ids of inference.
PREDICTION_LABEL = "prediction"
# Class ids of a decision rule that was applied afterwards.
DECISION_LABEL = "decision"
