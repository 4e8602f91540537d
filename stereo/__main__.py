"""``python -m stereo``: the same as the console command."""

from stereo.cli import main

if __name__ == "__main__":
    main()
