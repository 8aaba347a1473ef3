-- name: log
-- What in the log has a height, a hash, a consensus hash, or a name.
(SELECT 'block' AS kind, NULL::text AS app, block_id, hash AS text FROM virtualchain.blocks WHERE block_id = %(height)s::integer)
UNION ALL
(SELECT 'block', NULL, block_id, hash FROM virtualchain.blocks WHERE hash = %(hash)s::text)
UNION ALL
(SELECT 'transaction', NULL, block_id, txid FROM virtualchain.inputs WHERE txid = %(hash)s::text LIMIT 5)
UNION ALL
(SELECT DISTINCT 'transaction', NULL, NULL::integer, txid FROM virtualchain.pending WHERE txid = %(hash)s::text)
UNION ALL
(SELECT 'consensus', app, block_id, %(consensus_hash)s FROM virtualchain.blocks_of(%(consensus_hash)s::text) LIMIT 20)
UNION ALL
(SELECT 'app', name, NULL, NULL FROM virtualchain.apps WHERE strpos(lower(name), %(name)s::text) > 0 ORDER BY name COLLATE "C" LIMIT 20);

-- name: rows
-- The keys of some rows with a value in a column.
(SELECT {place} AS place, json_object({names}::text[], ARRAY[{texts}]) AS key FROM {view} AS r WHERE {column} = {text} LIMIT {limit})

-- name: address
-- The last inputs that spend from an address or pay to it: of the last 20,000, or fewer if they have more than 50 MB, those with the script are looked at.
WITH last AS (
    SELECT block_id, txindex, raw, spent, sum(octet_length(raw) + octet_length(spent)) OVER (ORDER BY block_id DESC, txindex DESC) AS size
    FROM (SELECT block_id, txindex, raw, spent FROM virtualchain.inputs ORDER BY block_id DESC, txindex DESC LIMIT 20000) AS newest
), candidates AS MATERIALIZED (
    SELECT block_id, txindex FROM last
    WHERE size <= 50000000 AND (position(%(script)s::bytea IN spent) > 0 OR position(%(script)s::bytea IN raw) > 0)
    ORDER BY block_id DESC, txindex DESC LIMIT 100
)
SELECT i.block_id, i.txid FROM candidates JOIN virtualchain.inputs AS i USING (block_id, txindex)
WHERE i.senders @> jsonb_build_array(jsonb_build_object('addresses', jsonb_build_array(%(address)s::text)))
    OR i.outputs @> jsonb_build_array(jsonb_build_object('addresses', jsonb_build_array(%(address)s::text)))
ORDER BY i.block_id DESC, i.txindex DESC LIMIT 20;
