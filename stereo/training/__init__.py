"""Training by recipe, with exact resume.

``recipe.py`` and ``config.py`` hold a recipe's fields, ``prepare.py`` makes a ``TrainingRun`` of it
(``run.py``), and ``loop.py`` trains that. The loop's parts: ``data.py`` and ``order.py`` (which
samples a step sees), ``learner.py`` (what a step changes), ``losses.py``, ``supervision.py`` (which
pixels count), ``validation.py``, ``saver.py`` and ``state.py`` (checkpoints), ``log.py``, and
``interrupt.py`` (what ends a run from outside).
"""
