"""The verbs of the command line, one function each, without logic: the work is imported when a verb runs."""
