"""Places where the published documentation of the reference library puts things."""
