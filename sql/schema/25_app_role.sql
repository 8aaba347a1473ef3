CREATE FUNCTION vc.role_of(schema text) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
    WHEN octet_length(concat_ws(':', current_database(), schema)) <= 63 AND current_database() NOT LIKE 'pg\_%'
    THEN concat_ws(':', current_database(), schema)
    ELSE concat_ws(':', left(encode(sha256(convert_to(current_database(), 'UTF8')), 'hex'), 16), schema)
END;
COMMENT ON FUNCTION vc.role_of(text) IS 'The role of the app with this schema: roles belong to the whole server, so the database is part of the name, hashed if the name would be too long or reserved.';

CREATE FUNCTION vc.consensus_hash(app text, build text, block_id integer) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
RETURN (SELECT encode(s.consensus_hash, 'hex') FROM vc.snapshots AS s
    WHERE s.app = consensus_hash.app AND s.build = consensus_hash.build AND s.block_id = consensus_hash.block_id);
COMMENT ON FUNCTION vc.consensus_hash(text, text, integer) IS 'The consensus hash of a build of an app at a block, for reducers: their role reads no table of the log.';

CREATE FUNCTION vc.is_fresh(app text, build text, consensus_hash text, first integer, last integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
RETURN EXISTS (SELECT FROM vc.snapshots AS s
    WHERE s.app = is_fresh.app AND s.build = is_fresh.build AND s.block_id BETWEEN first AND last
        AND s.consensus_hash = decode(is_fresh.consensus_hash, 'hex'));
COMMENT ON FUNCTION vc.is_fresh(text, text, text, integer, integer) IS 'Whether a consensus hash is that of a build of an app at one of a stretch of blocks, for reducers.';

CREATE FUNCTION vc.newest_blocks(app text, build text, hashes text[], last integer)
    RETURNS TABLE (consensus_hash text, block_id integer)
LANGUAGE sql STABLE SECURITY DEFINER SET enable_seqscan TO off
BEGIN ATOMIC
    SELECT wanted.hash, max(s.block_id)
    FROM unnest(newest_blocks.hashes) AS wanted (hash)
    JOIN vc.snapshots AS s ON s.consensus_hash = decode(wanted.hash, 'hex')
        -- Not written with =, or the primary key might look better, by which all blocks of the build are read.
        AND s.app IS NOT DISTINCT FROM newest_blocks.app AND s.build IS NOT DISTINCT FROM newest_blocks.build
        AND s.block_id <= newest_blocks.last
    GROUP BY wanted.hash;
END;
COMMENT ON FUNCTION vc.newest_blocks(text, text, text[], integer) IS 'For each of some consensus hashes, the newest block up to one at which a build of an app has it: the engine asks while the app''s role is set.';
