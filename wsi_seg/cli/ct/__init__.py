"""The verbs of `wsi-seg ct`, one file each."""
