"""-> data/processed: which rows train, validate and test; vocabularies and bins from train rows."""
