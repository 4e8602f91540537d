"""The command of the web page: ``app``."""

from jsonargparse import ArgumentParser, Namespace

from stereo.commands.command import Command, add_fields
from stereo.matching.options import MatchOptions


def _app_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=7860, help="0 for any that is free")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; other than the default, others on the network can match too",
    )
    parser.add_argument("--model", help="chosen at first: a name, or a .safetensors file of yours")
    add_fields(parser, MatchOptions, ["device"])


def _app(config: Namespace) -> int:
    from stereo.app.server import serve

    serve(config.host, config.port, model=config.model, device=config.device)
    return 0


COMMANDS = (Command("app", _app_arguments, _app, "the web page", "stereo app --port 7860"),)
