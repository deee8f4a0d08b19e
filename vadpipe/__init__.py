"""vadpipe: from raw video and images to an honest table of anomaly-detection results."""

__version__ = "0.1.0"
