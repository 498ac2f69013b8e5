"""The command line, `dav2 VERB ...`: one function a verb, and the only room that knows the names of flags."""
