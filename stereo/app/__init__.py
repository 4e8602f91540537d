"""The web page: what a visitor may send, what a request does, and the pages that show it.

``bounds``, ``models``, ``work``, ``store`` and ``html`` know nothing of gradio; ``desk`` answers
what the components send, ``page`` lays them out, ``server`` binds, serves and cleans up.
"""
