"""``python -m sb3_walle.cli``"""

import sys

from sb3_walle.cli import main

sys.exit(main())
