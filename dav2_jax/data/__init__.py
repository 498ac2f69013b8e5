"""Images with depth: procedural scenes, datasets on disk, records, loading and augmentation."""
