"""``models``: list the values of ``--model``."""

from stereo.commands.command import from_function

HEADER = ("model", "from", "licence of the code", "of the weights", "weights here")


def list_models() -> None:
    """Print the models by name, with their licences and whether their weights are here."""
    from stereo.errors import StereoError
    from stereo.models.config import NETWORK_NAMES
    from stereo.models.zoo import zoo_networks
    from stereo.system.bundled import SGBM, ZOO, bundled_weights
    from stereo.system.console import say, table

    rows = []
    for name in NETWORK_NAMES:
        ships = bundled_weights(name) is not None
        rows.append((name, "this project", "MIT", *(("MIT", "yes") if ships else ("none", "no"))))
    rows.append((SGBM, "OpenCV", "Apache-2.0", "needs none", ""))
    try:
        rows += [
            (
                ZOO + each.name,
                "stereo_matching",
                *each.licences,
                "yes" if each.has_weights() else "no",
            )
            for each in zoo_networks()
        ]
    except StereoError as error:
        note = str(error)
    else:
        note = "licences as the authors publish them; read them before you use a network at work"
    say(table(HEADER, rows))
    say(f"note: {note}")


COMMANDS = (
    from_function(
        "models",
        "stereo.commands.models:list_models",
        "list the models, with their licences",
        "stereo models",
    ),
)
