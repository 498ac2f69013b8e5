"""What a surface is, as far as depth is concerned. An example's `tag` holds indices into this list."""

TAGS = ("plain", "thin", "glass", "mirror", "sky")
