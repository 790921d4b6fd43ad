"""Owns the slide viewer: a local web server, and the page it serves.

Only this package imports starlette and uvicorn. The page consists of plain ES modules and
OpenSeadragon, which ``make viewer`` copies to ``static/vendor``.
"""
