-- name: clone_database
-- A database for one test, as the template is now.
CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy;

-- name: create_database
-- An empty database for one test.
CREATE DATABASE {name} STRATEGY file_copy;

-- name: drop_database
-- Remove a test's database, whoever is still connected to it.
DROP DATABASE IF EXISTS {name} WITH (FORCE);
