CREATE INDEX snapshots_consensus_hash ON vc.snapshots USING hash (consensus_hash);

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

REVOKE EXECUTE ON FUNCTION vc.newest_blocks(text, text, text[], integer) FROM PUBLIC;
