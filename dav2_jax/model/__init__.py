"""The network: pure functions of (params, images). Knows no mesh, no file, no dataset."""
