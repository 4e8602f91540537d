"""The web page: what a visitor may send, what a request does, and the pages that show it.

``guard`` passes on what the page itself sends and nothing else; ``arriving`` and ``uploads`` take
and keep visitors' files. ``handlers`` answers what the components send, ``page`` lays them out,
``routes`` serves it, ``server`` binds and cleans up; the others know nothing of gradio.
"""
