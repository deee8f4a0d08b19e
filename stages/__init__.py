"""Stages: programs that DVC runs, `python -m stages.NAME`."""

import sys

from vadpipe.errors import interrupted

# Modules are imported for seconds before a stage begins; Ctrl-C is told in a line there too.
if sys.argv[0] == "-m":
    sys.excepthook = interrupted
