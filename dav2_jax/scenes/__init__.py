"""Procedural scenes: shapes, light, layouts and what a camera and a depth sensor see of them. `data.procedural` is the
door; `render.render_scene` draws a scene of your own.
"""
