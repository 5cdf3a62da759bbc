"""Sweeps: a YAML file becomes a grid of points, and the points become rows of results.

`schema` describes the file, `grid` its points, `components` builds what a point needs, `runner`
runs them and `store` keeps the rows.
"""
