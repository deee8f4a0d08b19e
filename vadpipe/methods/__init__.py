"""Methods; the name of a file here is the name of its method."""
