"""`python -m plait`."""

import sys

from plait.cli import main

if __name__ == "__main__":  # a process that multiprocessing spawns imports this once more, under another name
    sys.exit(main())
