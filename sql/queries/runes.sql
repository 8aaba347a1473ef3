-- name: has_name
-- A rune with a name, if there is one.
SELECT id FROM runes WHERE name = %(name)s;
