"""Images in, `Depth` out."""
