"""What it costs: time on this machine, and what a TPU's compiler expects of one that is not here."""
