"""PostgreSQL: the tape, the apps' logs and tables, and the server where none is given."""
