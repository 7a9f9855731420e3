"""-> data/raw: files from their publisher, a mirror or the user, with a manifest of their checksums."""
