"""What operators look at: measures of a running deployment, probes, and checks of its surroundings."""
