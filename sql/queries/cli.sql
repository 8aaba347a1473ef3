-- name: drop_database
-- Remove the database of the demonstration, whoever is still connected to it.
DROP DATABASE IF EXISTS {name} WITH (FORCE);

-- name: create_database
-- A database whose text compares in byte order, whatever the server's own locale.
CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
