"""Launcher of ``stereo infer`` for tools that take a path."""

import sys

from stereo.commands.cli import main

if __name__ == "__main__":
    main(["infer", *sys.argv[1:]])
