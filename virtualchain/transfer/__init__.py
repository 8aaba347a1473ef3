"""Export a deployment to Parquet or CSV files, and import its tape into another database."""
