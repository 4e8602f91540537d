"""Launcher of ``stereo train`` for torchrun and accelerate, which take a path."""

import sys

from stereo.commands.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
