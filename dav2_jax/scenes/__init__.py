"""Procedural scenes: shapes, light, layouts and what a camera and a depth sensor see of them. `data.readers.procedural`
renders them as batches or as a source; `render.render_scene` renders a scene of your own.
"""
