"""What operators look at: whether a deployment and what it depends on are in order."""
