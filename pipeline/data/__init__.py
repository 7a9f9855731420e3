"""The encoded format, both ends: on disk, and as batches on a device."""
