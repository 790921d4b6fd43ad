"""Owns the names of files and folders in a collection; imports nothing, so that all can."""

# Folder of unfinished groups, in a collection and in a slide; what is in it is never read.
PARTIAL = ".partial"
# Folder to which `wsi-seg verify` moves damaged stores.
QUARANTINE = ".quarantine"
# Folder of a collection or a run that says which commands are at work in it.
RUN = ".run"
# Folder of an unfinished group: which process has which part of it, and what each has done.
SHARED = ".shared"
# File in an unfinished group whose finished one is made again.
AGAIN = ".again"

# Metadata of a group or an array, as zarr v3 calls it.
METADATA = "zarr.json"
# Which units of a slide are done; a prediction keeps it.
JOURNAL = "journal.jsonl"
# Digest of each file of a group.
DIGESTS = "digests.json"
# Place, size and class of each structure of a label.
OBJECTS = "objects.json"

# Folder of a slide's labels, and the labels that the package itself writes.
LABELS = "labels"
TISSUE = "tissue"
# Class ids that inference decided on.
PREDICTION_LABEL = "prediction"
# Class ids that a rule decided on afterwards.
DECISION_LABEL = "decision"
