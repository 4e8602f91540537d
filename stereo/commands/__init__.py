"""The commands: their arguments, and the one function that each calls.

Modules that take long to import are imported when their command runs.
"""

from stereo.commands import (
    app,
    benchmark,
    data,
    export,
    geometry,
    matching,
    models,
    submission,
    training,
)
from stereo.commands.command import Command

GROUPS = {
    "benchmark": "time and peak memory, with the machine and commit in the JSON",
    "data": "render, look at, check and list data sets",
}
"""Commands of two words, by the first."""

COMMANDS: tuple[Command, ...] = (
    *matching.COMMANDS,
    *models.COMMANDS,
    *submission.COMMANDS,
    *app.COMMANDS,
    *geometry.COMMANDS,
    *training.COMMANDS,
    *export.COMMANDS,
    *data.COMMANDS,
    *benchmark.COMMANDS,
)

__all__ = ["COMMANDS", "GROUPS", "Command"]
