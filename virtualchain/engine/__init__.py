"""Follow the chain: plan, take blocks onto the tape, advance the apps' machines along it, undo forks."""
