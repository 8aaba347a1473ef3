"""What the database says, for people and programs that only read."""
