"""The PostgreSQL server that comes with the extra `embedded`: installed, started, found again."""
