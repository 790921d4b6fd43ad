"""Owns the names of files and folders in a collection; imports nothing, so that all can."""

# Metadata of a group or an array, as zarr v3 calls it.
METADATA = "zarr.json"

# Folder of a group that holds what zarr does not know. zarr takes it for an array without pixels,
# so it does not look for members in it, and warns of nothing.
OWN = ".wsi_seg"
# Folder of unfinished groups, in a collection and in a slide; what is in it is never read.
PARTIAL = f"{OWN}/partial"
# Folder to which `wsi-seg verify` moves damaged stores.
QUARANTINE = f"{OWN}/quarantine"
# Folder of a collection or a run that says which commands are at work in it.
RUN = f"{OWN}/run"
# Folder of an unfinished group: which process has which part of it, and what each has done.
SHARED = f"{OWN}/shared"
# Folder of a collection that says what processes that share a command have done of it.
TURNS = f"{OWN}/turns"
# File in an unfinished group whose finished one is made again.
AGAIN = ".again"

# Which units of a slide are done; a prediction keeps it.
JOURNAL = f"{OWN}/journal.jsonl"
# Digest of each file of a group.
DIGESTS = f"{OWN}/digests.json"
# Place, size and class of each structure of a label.
OBJECTS = f"{OWN}/objects.json"

# Folder of a slide's labels, and the labels that the package itself writes.
LABELS = "labels"
TISSUE = "tissue"
# Class ids that inference decided on.
PREDICTION_LABEL = "prediction"
# Class ids that a rule decided on afterwards.
DECISION_LABEL = "decision"
