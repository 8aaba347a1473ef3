-- name: row_history
-- The versions of a row, newest first, and the times without one in between; each with the ops of its block, those first that share the most values with it. What is long is left out: fields of ops, and versions beyond 4 MiB.
WITH versions AS MATERIALIZED (
    SELECT v.from_block, v.until_block, v.row, lag(v.from_block, 1, %(before)s) OVER newer AS later,
        row_number() OVER newer AS place, sum(100 + pg_column_size(v.row)) OVER newer AS size, count(*) OVER () AS versions
    FROM virtualchain.row_history(%(app)s, %(table)s, %(key)s, %(before)s, %(limit)s) AS v
    WINDOW newer AS (ORDER BY v.from_block DESC ROWS UNBOUNDED PRECEDING)
), shown AS MATERIALIZED (
    SELECT * FROM versions WHERE place < %(limit)s AND (place = 1 OR size <= 4194304)
), eras AS (
    SELECT from_block, until_block, row FROM shown
    UNION ALL
    SELECT until_block, later, NULL FROM shown WHERE until_block IS DISTINCT FROM later AND until_block IS NOT NULL
)
SELECT row_to_json(answer)::text FROM (
    SELECT (SELECT history_from FROM virtualchain.apps
            WHERE name = %(app)s AND (history_from > base_block_id OR base_block_id >= first_block_id)) AS kept_from,
        (SELECT CASE WHEN count(*) < max(versions) THEN min(from_block) END FROM shown) AS next,
        coalesce((SELECT json_agg(row_to_json(e) ORDER BY e.from_block DESC) FROM (
            SELECT era.from_block, era.until_block, era.row, coalesce((
                SELECT json_agg(row_to_json(o) ORDER BY o.mentions DESC, o.vtxindex) FROM (
                    SELECT o.block_id, o.vtxindex, o.txid, o.opcode,
                        CASE WHEN pg_column_size(o.fields) < 2000 THEN o.fields END AS fields, (
                            SELECT count(*) FROM unnest(%(texts)s::text[]) AS t (text)
                            WHERE t.text = o.txid OR jsonb_path_exists(o.fields, '$.** ? (@ == $v || @ == $n)',
                                jsonb_build_object('v', t.text, 'n', CASE WHEN t.text ~ '^-?[0-9]{1,100}$' THEN to_jsonb(t.text::numeric)
                                    ELSE to_jsonb(t.text) END), true)
                        ) + CASE WHEN EXISTS (SELECT FROM jsonb_each_text(era.row) AS c WHERE c.value = o.txid) THEN 1 ELSE 0 END AS mentions
                    FROM virtualchain.ops AS o WHERE o.app = %(app)s AND o.block_id = era.from_block
                    ORDER BY mentions DESC, o.vtxindex LIMIT %(ops)s) AS o), '[]') AS ops
            FROM eras AS era) AS e), '[]') AS versions
) AS answer;

-- name: pruned
-- The first block from which on the changes of the chosen apps are known, if that is not all of them.
SELECT name, history_from FROM virtualchain.apps
WHERE (%(app)s::text IS NULL OR name = %(app)s) AND history_from > %(low)s AND (history_from > base_block_id OR base_block_id >= first_block_id)
ORDER BY history_from DESC, name COLLATE "C" LIMIT 1;

-- name: between_blocks
-- A part of the one below: how rows differ after a block from what they were after another.
virtualchain.net_changes(%(first)s, %(last)s, %(app)s, %(table)s)

-- name: in_block
-- A part of the one below: what a block changed, which takes less time.
(SELECT app, "table", key, old, new FROM virtualchain.changes WHERE block_id = %(last)s AND (%(app)s::text IS NULL OR app = %(app)s)) AS changed

-- name: changes
-- Changes of rows, as many as fit into 4 MiB, but at least one.
WITH found AS (
    SELECT * FROM {changes}
    WHERE NOT %(has_cursor)s OR (app COLLATE "C", "table" COLLATE "C", key) > (%(last_app)s, %(last_table)s, %(last_key)s::jsonb)
    ORDER BY app COLLATE "C", "table" COLLATE "C", key LIMIT %(limit)s
), measured AS (
    SELECT found.*, row_number() OVER place AS place, count(*) OVER () AS rows,
        sum(200 + coalesce(pg_column_size(old), 0) + coalesce(pg_column_size(new), 0)) OVER place AS size
    FROM found WINDOW place AS (ORDER BY app COLLATE "C", "table" COLLATE "C", key ROWS UNBOUNDED PRECEDING)
)
SELECT (SELECT row_to_json(c)::text FROM (
        SELECT m.app, m."table", CASE WHEN m.old IS NULL THEN 'insert' WHEN m.new IS NULL THEN 'delete' ELSE 'update' END AS action,
            m.key, m.old, m.new) AS c),
    m.rows, json_build_array(m.app, m."table", m.key::text)::text
FROM measured AS m WHERE m.place = 1 OR m.size <= 4194304 ORDER BY m.place;

-- name: op_changes
-- What the block of an op changed, those rows first that share the most values with the op.
SELECT row_to_json(found)::text FROM (
    SELECT c."table", c.action, c.key, c.old, c.new, (
            SELECT count(*) FROM jsonb_each(c.key) AS k
            WHERE k.value = to_jsonb(o.txid) OR jsonb_path_exists(o.fields, '$.** ? (@ == $v)', jsonb_build_object('v', k.value), true)
        ) + CASE WHEN EXISTS (SELECT FROM jsonb_each_text(coalesce(c.new, c.old)) AS v WHERE v.value = o.txid) THEN 1 ELSE 0 END AS mentions
    FROM virtualchain.ops AS o
    JOIN virtualchain.changes AS c ON c.app = o.app AND c.block_id = o.block_id
    WHERE o.app = %(app)s AND o.block_id = %(block_id)s AND c.app = %(app)s AND c.block_id = %(block_id)s AND o.vtxindex = %(vtxindex)s
    ORDER BY mentions DESC, c."table" COLLATE "C", c.key LIMIT %(limit)s
) AS found;
