-- name: create_schema
-- A schema for an app's views, or for the tables of one build.
CREATE SCHEMA {schema};

-- name: drop_schema
-- Drop a build's tables and everything that belongs to them.
DROP SCHEMA {schema} CASCADE;

-- name: search_path
-- Resolve unqualified names in the build's schema until the transaction ends.
SELECT set_config('search_path', quote_ident(%(tables)s), true);

-- name: no_search_path
-- Resolve unqualified names in pg_catalog only, and write all others with their schema, until the transaction ends.
SELECT set_config('search_path', '', true);

-- name: session_settings
-- Settings that were changed in this session, rather than by the server, the database or the role.
SELECT name, setting FROM pg_settings WHERE source = 'session';

-- name: any_row
-- Whether a table has a row.
SELECT 1 FROM {table} LIMIT 1;

-- name: tables
-- The tables of a build with their columns and the columns of their primary keys, in order.
SELECT c.relname AS name,
    ARRAY(SELECT a.attname::text FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
    ARRAY(SELECT a.attname::text FROM pg_index AS i
        CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place) AS key
FROM pg_class AS c
WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind = 'r'
ORDER BY c.relname COLLATE "C";

-- name: outpoint_types
-- The types of the columns that name an output in a projection.
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = format('%%I.%%I', %(tables)s::text, %(table)s::text)::regclass AND attname IN ('txid', 'vout') AND NOT attisdropped;

-- name: index_outpoints
-- Make a projection fast to search for outputs.
CREATE INDEX ON {table} (txid, vout);

-- name: text
-- The text of a column as its type's output function writes it; null stays null.
CASE num_nulls({column}) WHEN 0 THEN format('%s', {column}) END;

-- name: text_order
-- What rows are ordered by: the text of a column of the key, by its bytes.
format('%s', {column}) COLLATE "C"

-- name: objects_elsewhere
-- Objects that the DDL made outside the build's schema, in this transaction: no rollback or rebuild would reach them.
WITH made AS (SELECT * FROM pg_depend WHERE xmin = pg_current_xact_id()::xid)
SELECT format('its projections make the %%s %%s elsewhere: use unqualified names', o.type, o.identity)
FROM made AS d
CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) AS o
CROSS JOIN LATERAL pg_identify_object(d.refclassid, d.refobjid, 0) AS owner
WHERE NOT EXISTS ( -- parts of a new object: the index of a key, the row type of a table
    SELECT FROM made AS part JOIN made AS whole ON (whole.classid, whole.objid) = (part.refclassid, part.refobjid)
    WHERE (part.classid, part.objid) = (d.classid, d.objid) AND part.deptype IN ('a', 'i'))
GROUP BY o.type, o.identity
HAVING bool_or(coalesce(o.schema, owner.schema) = %(tables)s) IS NOT TRUE
UNION ALL
SELECT format('its projections make a schema, %%s', nspname)
FROM pg_namespace
WHERE xmin = pg_current_xact_id()::xid AND nspname NOT IN (%(schema)s, %(tables)s) AND nspname NOT LIKE 'pg\_%%'
ORDER BY 1;

-- name: other_objects
-- Objects that the DDL made in the build's schema and that belong to no table.
SELECT DISTINCT format('its projections make the %%s %%s: only tables and what belongs to them are allowed', o.type,
    coalesce(o.name, o.identity))
FROM pg_depend AS d
CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) AS o
WHERE d.xmin = pg_current_xact_id()::xid AND o.schema = %(tables)s AND o.type NOT IN
    ('table', 'index', 'type', 'table constraint', 'domain constraint', 'statistics object')
ORDER BY 1;

-- name: unsuitable_tables
-- Tables that could not be rolled back, or whose rows could differ between nodes.
SELECT format('projection %%s %%s', c.relname, fault.message)
FROM pg_class AS c
LEFT JOIN pg_index AS key ON key.indrelid = c.oid AND key.indisprimary
CROSS JOIN LATERAL ( -- at most, with the engine's two columns; longer values than 24 bytes move out of the row if need be
    SELECT 23 + (count(*) + 9) / 8 + 8 + 2 * 7 + sum(CASE WHEN t.typlen < 0 THEN 24 ELSE t.typlen
        + CASE t.typalign WHEN 'd' THEN 7 WHEN 'i' THEN 3 WHEN 's' THEN 1 ELSE 0 END END) AS size
    FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) AS widest
CROSS JOIN LATERAL (VALUES
    (key.indexrelid IS NULL, 'has no primary key'),
    (key.indnkeyatts > 31, 'has a primary key of more than 31 columns: its history needs one more'),
    (octet_length(c.relname) > 54, 'has a name of more than 54 bytes'),
    (c.relkind = 'p', 'is partitioned'),
    (c.relpersistence = 'u', 'is unlogged: a crash would empty it'),
    (c.reloftype <> 0, 'is made of a type: list its columns instead'),
    (c.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)),
        'inherits or is inherited: its rows would belong to another table as well'),
    (c.relrowsecurity, 'has row level security, which would hide rows'),
    (widest.size > 8160, format('may have rows of %%s bytes, which do not fit on a page: use fewer columns', widest.size)),
    (c.relkind = 'r' AND c.relam <> (SELECT oid FROM pg_am WHERE amname = 'heap'), 'is not a heap table')
) AS fault (holds, message)
WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind IN ('r', 'p') AND fault.holds
ORDER BY 1;

-- name: taken_names
-- Names that the engine needs for a projection's history and births, but that are already in use.
SELECT format('projection %%s: the name %%s is taken, but the engine needs it', c.relname, taken.name)
FROM pg_class AS c
CROSS JOIN (VALUES ('_history'), ('_births')) AS twin (suffix)
JOIN (
    SELECT relname AS name FROM pg_class WHERE relnamespace = %(tables)s::regnamespace
    UNION SELECT typname FROM pg_type WHERE typnamespace = %(tables)s::regnamespace
) AS taken ON taken.name = c.relname || twin.suffix
WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind = 'r'
ORDER BY 1;

-- name: triggers_and_rules
-- Triggers and rules of the app: undoing a block would fire them as well.
SELECT format('projection %%s has a trigger or rule of its own, %%s: leave that work to reducers', c.relname, own.name)
FROM pg_class AS c
JOIN (
    SELECT tgrelid AS relation, tgname AS name FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT ev_class, rulename FROM pg_rewrite
) AS own ON own.relation = c.oid
WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind IN ('r', 'p')
ORDER BY 1;

-- name: unsuitable_foreign_keys
-- Foreign keys that would fail or change rows while a block is undone, which restores one table after the other.
SELECT format('foreign key %%s of %%s %%s', k.conname, c.relname,
    CASE WHEN target.relnamespace <> c.relnamespace THEN format('refers to a table outside the app, %%s', target.oid::regclass)
        ELSE 'must be DEFERRABLE, and NO ACTION on update and delete' END)
FROM pg_constraint AS k
JOIN pg_class AS c ON c.oid = k.conrelid
JOIN pg_class AS target ON target.oid = k.confrelid
WHERE k.connamespace = %(tables)s::regnamespace AND k.contype = 'f' AND NOT (
    target.relnamespace = c.relnamespace AND k.condeferrable AND k.confupdtype = 'a' AND k.confdeltype = 'a')
ORDER BY 1;

-- name: unsuitable_columns
-- Columns whose values do not come from a reducer, whose names the engine reserves, or whose storage decides which rows fit.
SELECT format('column %%s of %%s %%s', a.attname, c.relname, fault.message)
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
CROSS JOIN LATERAL (VALUES
    (a.attname IN ('since_block', 'until_block'), 'has a name that is reserved for the engine'),
    (a.attidentity <> '', 'is an identity column: its numbers would differ after a rollback'),
    (a.attgenerated <> '', 'is generated: let the reducer compute it'),
    (a.attcompression NOT IN ('', 'p'), 'is compressed with another method than pglz: the method decides which keys fit an index'),
    (a.attstorage <> t.typstorage, 'has another storage than its type: leave SET STORAGE out')
) AS fault (holds, message)
WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind = 'r' AND fault.holds
ORDER BY c.relname COLLATE "C", a.attnum;

-- name: unsuitable_types
-- Columns whose type is inexact, may be missing on another server, or may have another text form there; the check looks into arrays, domains and ranges.
WITH RECURSIVE parts AS (
    SELECT a.attrelid, a.attnum, a.attname, a.atttypid AS part
    FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT p.attrelid, p.attnum, p.attname, inner_type.oid
    FROM parts AS p
    JOIN pg_type AS t ON t.oid = p.part
    LEFT JOIN pg_range AS r ON t.oid IN (r.rngtypid, r.rngmultitypid)
    JOIN pg_type AS inner_type ON inner_type.oid IN (t.typbasetype, t.typelem, r.rngsubtype)
)
SELECT format('column %%s of %%s %%s', p.attname, c.relname, CASE
    WHEN t.typname IN ('float4', 'float8', 'point', 'line', 'lseg', 'box', 'path', 'polygon', 'circle')
        THEN format('is a float (%%s): use numeric or integer', format_type(t.oid, NULL))
    ELSE format('has the type %%s: use one of PostgreSQL''s own types whose text form is the same everywhere, '
        'or a domain or enum that the projections make', format_type(t.oid, NULL)) END)
FROM parts AS p
JOIN pg_type AS t ON t.oid = p.part
JOIN pg_class AS c ON c.oid = p.attrelid
WHERE NOT CASE t.typnamespace
    WHEN 'pg_catalog'::regnamespace THEN t.typtype IN ('r', 'm') OR t.typcategory = 'A' OR t.typname IN (
        'bool', 'int2', 'int4', 'int8', 'numeric', 'oid', 'text', 'varchar', 'bpchar', 'char', 'name', 'bytea', 'bit',
        'varbit', 'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'uuid', 'json', 'jsonb',
        'inet', 'cidr', 'macaddr', 'macaddr8', 'tsvector')
    WHEN %(tables)s::regnamespace THEN t.typtype IN ('d', 'e') OR t.typcategory = 'A'
    ELSE false END
ORDER BY c.relname COLLATE "C", p.attnum, t.oid;

-- name: unsuitable_collations
-- Columns, domains, indexes and expressions with another collation than C; in a database of another locale, that is also the default collation, unless it compares in byte order.
WITH allowed AS (
    SELECT l.oid FROM pg_collation AS l
    JOIN pg_database AS b ON b.datname = current_database()
    WHERE l.collnamespace = 'pg_catalog'::regnamespace AND (
        l.collname IN ('C', 'POSIX')
        OR l.collname = 'default' AND b.datlocprovider <> 'i' AND coalesce(to_jsonb(b) ->> 'datlocale', b.datcollate)
            IN ('C', 'POSIX', 'C.UTF-8', 'C.UTF8', 'C.utf8'))
)
SELECT format('%%s has another collation than C: add COLLATE "C"', used.place)
FROM (
    SELECT format('column %%s of %%s', a.attname, c.relname) AS place, a.attcollation AS used_collation
    FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    SELECT format('the domain %%s', typname), typcollation FROM pg_type
    WHERE typnamespace = %(tables)s::regnamespace AND typtype = 'd' AND typcollation <> 'pg_catalog."default"'::regcollation
    UNION
    SELECT format('the index %%s of %%s', own.relname, c.relname), l.used
    FROM pg_index AS i
    JOIN pg_class AS own ON own.oid = i.indexrelid
    JOIN pg_class AS c ON c.oid = i.indrelid
    CROSS JOIN LATERAL unnest(i.indcollation::oid[]) AS l (used)
    WHERE c.relnamespace = %(tables)s::regnamespace
    UNION
    SELECT e.place, l.match[1]::oid
    FROM ({expressions}) AS e
    CROSS JOIN LATERAL regexp_matches(e.tree, ':(?:inputcollid|collOid) (\d+)', 'g') AS l (match)
) AS used
WHERE used.used_collation <> 0 AND used.used_collation NOT IN (SELECT oid FROM allowed)
ORDER BY 1;

-- name: unstable_expressions
-- Defaults, checks and indexes that depend on more than the row: the clock, chance, settings, the time of installation, or how the server's version reads text as another type.
SELECT DISTINCT format('%%s may yield other values elsewhere or later', e.place)
FROM ({expressions}) AS e
WHERE e.tree ~ 'SQLVALUEFUNCTION|NEXTVALUEEXPR'
    OR EXISTS (
        SELECT FROM regexp_matches(e.tree, ':(?:opfuncid|funcid) (\d+)', 'g') AS m
        JOIN pg_proc AS p ON p.oid = m[1]::oid
        WHERE p.provolatile <> 'i')
    OR e.tree ~ 'COERCEVIAIO|ARRAYCOERCEEXPR' AND EXISTS (
        SELECT FROM regexp_matches(e.tree, ':(?:resulttype|vartype|consttype|funcresulttype|opresulttype) (\d+)', 'g') AS m
        JOIN pg_type AS t ON t.oid = m[1]::oid
        JOIN pg_proc AS p ON p.oid IN (t.typinput, t.typoutput)
        WHERE p.provolatile <> 'i')
    OR EXISTS (
        SELECT FROM regexp_matches(e.tree, ':resulttype (\d+) :resultcollid', 'g') AS m -- what only COERCEVIAIO has side by side
        JOIN pg_type AS t ON t.oid = m[1]::oid
        WHERE t.typcategory NOT IN ('S', 'E') AND t.oid NOT IN ('bytea'::regtype, 'uuid'::regtype))
    OR EXISTS (
        SELECT FROM unnest(ARRAY['now', 'today', 'tomorrow', 'yesterday']) AS w (word)
        CROSS JOIN LATERAL (VALUES (w.word::timestamptz::text), (w.word::timestamp::text), (w.word::date::text),
            (CURRENT_TIME::text), (LOCALTIME::text)) AS v (text)
        WHERE %(ddl)s ~* format('''\s*%%s\M', w.word) AND strpos(e.text, quote_literal(v.text) || '::') > 0)
ORDER BY 1;

-- name: expressions
-- A part of the two above: every expression in a table, a domain or an index of the build.
SELECT format('the default of column %%s of %%s', a.attname, c.relname) AS place, d.adbin::text AS tree,
    pg_get_expr(d.adbin, d.adrelid) AS text
FROM pg_attrdef AS d
JOIN pg_class AS c ON c.oid = d.adrelid
JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE c.relnamespace = %(tables)s::regnamespace AND a.attgenerated = ''
UNION ALL
SELECT format('the default of domain %%s', typname), typdefaultbin::text, pg_get_expr(typdefaultbin, 0)
FROM pg_type WHERE typnamespace = %(tables)s::regnamespace AND typdefaultbin IS NOT NULL
UNION ALL
SELECT format('the constraint %%s of %%s', conname, coalesce(c.relname, format_type(k.contypid, NULL))),
    k.conbin::text, pg_get_expr(k.conbin, k.conrelid)
FROM pg_constraint AS k
LEFT JOIN pg_class AS c ON c.oid = k.conrelid
WHERE k.connamespace = %(tables)s::regnamespace AND k.conbin IS NOT NULL
UNION ALL
SELECT format('the index %%s of %%s', own.relname, c.relname), part.tree::text, pg_get_expr(part.tree, c.oid)
FROM pg_index AS i
JOIN pg_class AS own ON own.oid = i.indexrelid
JOIN pg_class AS c ON c.oid = i.indrelid
CROSS JOIN LATERAL (VALUES (i.indexprs), (i.indpred)) AS part (tree)
WHERE c.relnamespace = %(tables)s::regnamespace AND part.tree IS NOT NULL;

-- name: entry_sizes
-- What an entry in each B-tree index of a table takes, in bytes, as an expression over the table's columns; with is_in_trigger over NEW, unless the index is computed, which means that it has an expression or a predicate. Indexes whose entries have a fixed size are left out. The search path must be empty.
WITH RECURSIVE columns AS (
    SELECT i.indexrelid, i.indisprimary, k.place, a.attname, coalesce(a.atttypid, entry.atttypid) AS type,
        i.indpred IS NOT NULL OR i.indexprs IS NOT NULL AS is_computed, pg_get_expr(i.indpred, i.indrelid) AS predicate
    FROM pg_index AS i
    JOIN pg_class AS own ON own.oid = i.indexrelid
    JOIN pg_am AS method ON method.oid = own.relam AND method.amname = 'btree'
    CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_attribute AS entry ON entry.attrelid = i.indexrelid AND entry.attnum = k.place
    LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = nullif(k.attnum, 0)
    WHERE i.indrelid = format('%%I.%%I', %(tables)s::text, %(table)s::text)::regclass
), types AS (
    SELECT indexrelid, place, type FROM columns
    UNION ALL
    SELECT p.indexrelid, p.place, t.typbasetype FROM types AS p JOIN pg_type AS t ON t.oid = p.type AND t.typtype = 'd'
)
SELECT own.relname AS name, c.indisprimary AS is_primary, c.is_computed, c.predicate,
    array_agg(c.attname::text ORDER BY c.place) AS columns, string_agg(CASE
        WHEN t.typlen > 0 THEN t.typlen::text
        WHEN t.typlen = -2 THEN '64'
        WHEN t.typname IN ('text', 'varchar', 'bpchar', 'bytea', 'bit', 'varbit') THEN format('coalesce(octet_length(%%s), 0)', x.value)
        WHEN t.typname = 'numeric' THEN format('octet_length(format(''%%%%s'', %%s))', x.value)
        -- The text is parsed again for the size without compression; a long one is too long either way.
        ELSE format('(CASE WHEN octet_length(format(''%%%%s'', %%1$s)) > {most_bytes} THEN octet_length(format(''%%%%s'', %%1$s)) '
            'ELSE coalesce(greatest(octet_length(format(''%%%%s'', %%1$s)), pg_column_size(format(''%%%%s'', %%1$s)::%%2$s)), 0) END)',
            x.value, format_type(t.oid, -1))
        END, ' + ' ORDER BY c.place) AS size
FROM columns AS c
JOIN pg_class AS own ON own.oid = c.indexrelid
JOIN types AS p ON p.indexrelid = c.indexrelid AND p.place = c.place
JOIN pg_type AS t ON t.oid = p.type AND t.typtype <> 'd'
CROSS JOIN LATERAL (SELECT CASE WHEN c.attname IS NULL THEN pg_get_indexdef(c.indexrelid, c.place::integer, false)
    WHEN %(is_in_trigger)s AND NOT c.is_computed THEN format('NEW.%%I', c.attname) ELSE quote_ident(c.attname) END AS value) AS x
GROUP BY own.relname, c.indisprimary, c.is_computed, c.predicate
HAVING bool_or(t.typlen = -1)
ORDER BY c.indisprimary DESC, own.relname COLLATE "C";

-- name: keep_history
-- Add to one projection its since_block, its history and births.
ALTER TABLE {table} ADD COLUMN since_block integer NOT NULL;
COMMENT ON COLUMN {table}.since_block IS 'The block that last made or changed the row.';
CREATE TABLE {history} (LIKE {table}, until_block integer NOT NULL, PRIMARY KEY (until_block, {key}));
COMMENT ON TABLE {history} IS 'Rows as they were before the block that changed or removed them.';
COMMENT ON COLUMN {history}.until_block IS 'The block that changed or removed the row.';
CREATE TABLE {births} AS SELECT since_block, {key} FROM {table} WITH NO DATA;
CREATE INDEX ON {births} (since_block);
COMMENT ON TABLE {births} IS 'Keys of the rows that each block made or changed: they are found without a scan, and without an index that would prevent HOT updates. A key may appear twice.';

-- name: keep_triggers
-- Add the triggers that maintain since_block, history and births of one projection.
CREATE TRIGGER keep_history BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
    WHEN (current_setting('virtualchain.block_id', true) IS DISTINCT FROM 'undo')
    EXECUTE FUNCTION {function}();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION vc.refuse_truncate();

-- name: keep_function
-- Create or replace the function of the trigger keep_history.
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body};
COMMENT ON FUNCTION {function}() IS 'Maintains since_block, history and births of one projection, whoever writes to it, and rejects rows that are too long for an index.';

-- name: keep_body
-- A part of the one above: what the trigger does.
#variable_conflict use_column
DECLARE
    block CONSTANT integer := vc.writing_block(TG_RELID);
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.since_block < block THEN
        INSERT INTO {history} VALUES (OLD.*, block);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.since_block := block;{checks}
    IF TG_OP = 'INSERT' OR OLD.since_block < block OR ({old_key}) IS DISTINCT FROM ({new_key}) THEN
        INSERT INTO {births} VALUES (block, {new_key});
    END IF;
    RETURN NEW;
END;

-- name: entry_check
-- A part of the one above: refuse a row whose entry in an index is too long; an older row may keep one.
IF {size} > {most_bytes} AND (TG_OP = 'INSERT' OR ({old}) IS DISTINCT FROM ({new})) THEN
    RAISE EXCEPTION USING ERRCODE = '22001', MESSAGE = {message};
END IF;

-- name: computed_entry_check
-- The same for an index with an expression or a predicate, which are evaluated with the row's columns as names.
IF EXISTS (SELECT FROM (SELECT NEW.*) AS {row} WHERE {predicate} AND {size} > {most_bytes}) THEN
    RAISE EXCEPTION USING ERRCODE = '22001', MESSAGE = {message};
END IF;

-- name: kept_body
-- What the trigger keep_history of a table does now.
SELECT p.prosrc FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
WHERE t.tgname = 'keep_history' AND t.tgrelid = format('%%I.%%I', %(tables)s::text, %(table)s::text)::regclass;

-- name: births_key
-- The primary key of a table's births, which older versions had: they recorded a key once a block.
SELECT conname FROM pg_constraint
WHERE contype = 'p' AND conrelid = format('%%I.%%I', %(tables)s::text, %(table)s || '_births')::regclass;

-- name: drop_births_key
-- Make an older record of births like a new one, in which a key may appear twice.
ALTER TABLE {births} DROP CONSTRAINT {constraint};
CREATE INDEX ON {births} (since_block);

-- name: without_identity
-- Tables of a schema whose rows have no replica identity: a publication of all tables would make updates and deletes fail.
SELECT c.relname FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace(quote_ident(%(tables)s)) AND c.relkind = 'r' AND c.relreplident <> 'f'
    AND NOT EXISTS ( -- a deferrable key identifies no row
        SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indimmediate AND i.indisvalid
            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END);

-- name: identify_rows
-- Let logical replication identify the rows of a table by all of their columns.
ALTER TABLE {table} REPLICA IDENTITY FULL;

-- name: long_entry
-- Whether a table has a row with an entry that is too long for an index.
SELECT 1 FROM {table} WHERE {predicate} AND {size} > {most_bytes} LIMIT 1;

-- name: plain_indexes
-- The indexes of a table that no constraint, foreign key or replica identity needs, and that their definition and comment describe completely: schema, name, these two.
SELECT n.nspname, c.relname, pg_get_indexdef(c.oid), obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE i.indrelid = %s::regclass AND NOT i.indisreplident AND NOT i.indisclustered AND c.reltablespace = 0
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attstattarget >= 0)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = c.oid)
ORDER BY c.relname;

-- name: drop_index
-- Drop an index.
DROP INDEX {index};

-- name: comment_index
-- Describe an index.
COMMENT ON INDEX {index} IS {comment};
