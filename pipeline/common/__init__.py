"""What every room may use: errors for people, files that are whole or absent, a fixed random order."""
