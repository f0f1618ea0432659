"""`python -m service`: the same as `holdfast`."""

import sys

from service.cli import main

sys.exit(main())
