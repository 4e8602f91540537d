"""Launcher of ``stereo evaluate`` for tools that take a path."""

import sys

from stereo.commands.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
