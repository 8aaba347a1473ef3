-- name: samples
-- What the writer counted until its last report; no row before the first start.
SELECT name, value, labels FROM virtualchain.metrics;

-- name: size
-- The size of the database in bytes.
SELECT pg_database_size(current_database());

-- name: rates
-- Blocks, ops and rejections a second over the last minute that the writer reported of, and how many seconds that was; no row if there are not two reports.
-- An empty tape has no height.
WITH recent AS (
    SELECT at, block_id, ops, rejections, row_number() OVER (ORDER BY at) AS place FROM virtualchain.progress
    WHERE at > (SELECT max(at) FROM virtualchain.progress) - interval '1 minute'
)
SELECT seconds, coalesce((last_block - first_block) / seconds, 0) AS blocks, ops / seconds AS ops, rejections / seconds AS rejections
FROM (
    SELECT extract(epoch FROM max(at) - min(at))::float8 AS seconds, max(block_id) AS last_block,
        coalesce(min(block_id) FILTER (WHERE place = 1), max(block_id)) AS first_block,
        sum(ops) FILTER (WHERE place > 1)::float8 AS ops, sum(rejections) FILTER (WHERE place > 1)::float8 AS rejections
    FROM recent
) AS total
WHERE seconds > 0;
