"""params.yaml as checked values: the signature of a function is its config."""
