"""The command line, `dav2 COMMAND ...`: one function each, and the only room that knows the names of flags."""
