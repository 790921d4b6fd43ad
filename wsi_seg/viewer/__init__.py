"""Owns looking at slides: a read-only server on this machine, and the page it serves.

Starlette and uvicorn live here and nowhere else; the page is plain ES modules and OpenSeadragon,
which ``make viewer`` puts into ``static/vendor``.
"""
