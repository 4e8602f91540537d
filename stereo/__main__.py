"""``python -m stereo``: the same as the console command."""

from stereo.commands.cli import main

if __name__ == "__main__":
    main()
