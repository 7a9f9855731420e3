"""What a model costs beside what it reaches: time of a training, rows scored a second, size, AUC."""
