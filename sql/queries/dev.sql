-- name: copy_database
-- Create a database as a copy of one that nobody is connected to.
CREATE DATABASE {name} TEMPLATE {template};
