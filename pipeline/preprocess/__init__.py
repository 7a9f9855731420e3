"""-> data/interim: text and tables in blocks, cleaned row by row, joined, into one clean table."""
