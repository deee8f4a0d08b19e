"""Virtual anomalies: cut from a source in the layout of UBnormal, and pasted into training clips."""

from vadpipe.prepare.composite.stage import write_composites

__all__ = ["write_composites"]
