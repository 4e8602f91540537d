"""The command of the web page: ``app``."""

from stereo.commands.command import from_function

COMMANDS = (
    from_function("app", "stereo.app.server:serve", "the web page", "stereo app --port 7860"),
)
