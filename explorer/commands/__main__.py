"""`python -m explorer.commands`."""

import sys

from explorer.commands.main import main

sys.exit(main())
