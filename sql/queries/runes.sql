-- name: has_name
-- A rune with a name, if there is one.
SELECT id FROM runes WHERE name = %(name)s;

-- name: count
-- How many runes were etched.
SELECT coalesce(max(number) + 1, 0) AS count FROM runes;
