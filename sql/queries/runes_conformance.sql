-- name: runes
-- All runes.
SELECT * FROM runes.runes;

-- name: outputs
-- What all outputs hold.
SELECT txid, vout, rune, amount FROM runes.outputs;
