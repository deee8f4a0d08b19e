"""Readers of data sets; the name of a file here is the name of its reader."""
