"""Carry a deployment away as files, Parquet or CSV, and its tape into a database elsewhere."""
