"""Whether a new log is like the test rows of a model, and the model as good there as its report says."""
