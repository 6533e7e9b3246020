"""What can be said about a model or a data set beyond its metrics."""
