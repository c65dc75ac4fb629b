"""`python -m geoalign`: the command line."""

import sys

from geoalign.cli import main

sys.exit(main())
