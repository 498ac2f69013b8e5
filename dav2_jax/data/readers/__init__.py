"""Datasets as their authors ship them, one file a dataset; `data/sources.py` has the table of their names."""
