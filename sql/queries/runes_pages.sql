-- name: find
-- The rune that a visitor looks for, by id, by name with any spacers, or by number.
SELECT id, spaced_name AS label FROM runes
WHERE id = %(text)s::text OR name = upper(translate(%(text)s::text, '•. ', ''))
    OR number = CASE WHEN %(text)s::text ~ '^[0-9]{1,9}$' THEN (%(text)s::text)::integer END;

-- name: rune
-- A rune, by what `find` takes: what was made of it, and when it can be minted.
SELECT *, premine + mints * coalesce(mint_amount, 0) AS supply, to_timestamp("timestamp") AS etched_at,
    greatest(height_start, block + offset_start) AS opens, least(height_end, block + offset_end) AS closes,
    greatest(coalesce(mint_cap, 0) - mints, 0) AS mints_left
FROM runes
WHERE id = %(key)s::text OR name = upper(translate(%(key)s::text, '•. ', ''))
    OR number = CASE WHEN %(key)s::text ~ '^[0-9]{1,9}$' THEN (%(key)s::text)::integer END;

-- name: holders
-- The addresses that hold most of a rune, and how many hold any.
SELECT address, sum(amount) AS amount, count(*) AS outputs, count(*) OVER () AS all_holders
FROM outputs WHERE rune = %(key)s GROUP BY address ORDER BY amount DESC, address LIMIT 100;

-- name: events
-- What happened to a rune last.
SELECT * FROM rune_events WHERE rune = %(key)s ORDER BY block_id DESC, txindex DESC, event DESC LIMIT 50;

-- name: by_number
-- The runes before a number, newest first; nothing if one is asked for, or all by name.
SELECT * FROM runes
WHERE %(key)s::text IS NULL AND %(by)s::text IS DISTINCT FROM 'name'
    AND number < coalesce((%(before)s::text)::integer, 2147483647)
ORDER BY number DESC LIMIT 101;

-- name: by_name
-- The runes after a name, by name; nothing if one is asked for, or all by number.
SELECT * FROM runes
WHERE %(key)s::text IS NULL AND %(by)s::text = 'name' AND name > coalesce(%(after)s::text, '')
ORDER BY name LIMIT 101;

-- name: find_output
-- The output that a visitor looks for, TXID:VOUT, if it holds runes.
SELECT DISTINCT txid || ':' || vout FROM outputs
WHERE txid = split_part(%(text)s::text, ':', 1) AND vout::text = split_part(%(text)s::text, ':', 2);

-- name: balances
-- What an output holds; the key is TXID:VOUT.
SELECT o.*, r.spaced_name, r.divisibility, r.symbol FROM outputs AS o JOIN runes AS r ON r.id = o.rune
WHERE o.txid = split_part(%(key)s::text, ':', 1) AND o.vout = nullif(split_part(%(key)s::text, ':', 2), '')::integer
ORDER BY r.number;

-- name: received
-- What an output received.
SELECT e.*, r.spaced_name, r.divisibility, r.symbol FROM rune_events AS e JOIN runes AS r ON r.id = e.rune
WHERE e.txid = split_part(%(key)s::text, ':', 1) AND e.vout = nullif(split_part(%(key)s::text, ':', 2), '')::integer
ORDER BY e.event;
