"""Post the events of apps to other programs: signed, in order, at least once."""
