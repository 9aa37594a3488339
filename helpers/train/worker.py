"""One launched process: it ends when the agent that started it does, however that ended, then does what
`python -m helpers.train` does in a launched process."""

import os
import sys

from helpers.processes import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    if os.environ["COMPANION_AGENT"] != str(os.getppid()):
        sys.exit("The agent that started this process is gone.")
    from helpers.train.__main__ import main

    sys.exit(main())
