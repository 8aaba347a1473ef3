ALTER TABLE vc.deployment ADD COLUMN address_form text;
COMMENT ON COLUMN vc.deployment.address_form IS 'How another coin writes addresses: its version of pay-to-public-key-hash, of pay-to-script-hash, another one that is read for that, all in hex, the prefix of segwit addresses, and segwit if there are witness programs, or mweb if some of them are of MWEB, with colons between; null for Bitcoin.';
COMMENT ON COLUMN vc.deployment.network IS 'mainnet, testnet3, testnet4, signet, regtest, signet- and the eight hex digits of a custom signet''s message start, or a network of another coin, such as litecoin-regtest.';
COMMENT ON COLUMN virtualchain.deployment.network IS 'mainnet, testnet3, testnet4, signet, regtest, signet- and the eight hex digits of a custom signet''s message start, or a network of another coin, such as litecoin-regtest.';

CREATE OR REPLACE FUNCTION vc.base58_address(payload bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    data CONSTANT bytea := payload || substr(sha256(sha256(payload)), 1, 4);
    more CONSTANT integer := octet_length(data) - 25; -- a version may have a second byte
    number numeric := CASE WHEN more > 0 THEN get_byte(data, 0) ELSE 0 END;
    rest bigint;
    digits text := '';
BEGIN
    FOR place IN 0 .. 4 LOOP -- 25 bytes
        number := number * 1099511627776 + ((get_byte(data, 5 * place + more)::bigint << 32) | (get_byte(data, 5 * place + more + 1)::bigint << 24)
            | (get_byte(data, 5 * place + more + 2) << 16) | (get_byte(data, 5 * place + more + 3) << 8) | get_byte(data, 5 * place + more + 4));
    END LOOP;
    WHILE number > 0 LOOP
        rest := mod(number, 656356768); -- 58^5
        number := div(number, 656356768);
        FOR place IN 1 .. 5 LOOP
            digits := substr('123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz', (rest % 58)::integer + 1, 1) || digits;
            rest := rest / 58;
        END LOOP;
    END LOOP;
    RETURN repeat('1', octet_length(data) - octet_length(ltrim(data, '\x00'::bytea))) || ltrim(digits, '1');
END;
$$;
COMMENT ON FUNCTION vc.base58_address(bytea) IS 'The address with a version of one or two bytes and a hash of 20 bytes.';

CREATE FUNCTION vc.prefix_checksum(prefix text) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    checksum integer := 996825010;
BEGIN
    FOR place IN 1 .. length(prefix) LOOP
        checksum := vc.checksum_step(checksum, ascii(substr(prefix, place, 1)) >> 5);
    END LOOP;
    checksum := vc.checksum_step(checksum, 0);
    FOR place IN 1 .. length(prefix) LOOP
        checksum := vc.checksum_step(checksum, ascii(substr(prefix, place, 1)) & 31);
    END LOOP;
    RETURN checksum;
END;
$$;
COMMENT ON FUNCTION vc.prefix_checksum(text) IS 'The checksum of a Bech32 address (BIP 173) after its prefix.';

CREATE OR REPLACE FUNCTION vc.segwit_address(prefix text, version integer, program bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    size CONSTANT integer := (8 * octet_length(program) + 4) / 5;
    padded CONSTANT bytea := program || '\x0000';
    written bytea := '';
    symbols integer; -- a variable, because a call with a long expression is not inlined
    -- That of the prefix, followed by zeros where the checksum will be.
    checksum integer := CASE prefix WHEN 'bc' THEN 297473181 WHEN 'tb' THEN 809993152 WHEN 'bcrt' THEN 1032750143 ELSE vc.prefix_checksum(prefix) END;
BEGIN
    checksum := vc.checksum_step(checksum, version);
    FOR place IN 0 .. (size - 1) / 4 LOOP
        symbols := (((get_byte(padded, 5 * place / 2) << 16) | (get_byte(padded, 5 * place / 2 + 1) << 8)
            | get_byte(padded, 5 * place / 2 + 2)) >> (4 - 4 * (place % 2))) & 1048575;
        written := written || vc.bech32_characters(symbols);
        IF 4 * place + 4 <= size THEN
            checksum := vc.checksum_steps(checksum, symbols);
        ELSE
            FOR rest IN 1 .. size % 4 LOOP
                checksum := vc.checksum_step(checksum, (symbols >> (20 - 5 * rest)) & 31);
            END LOOP;
        END IF;
    END LOOP;
    checksum := checksum # CASE WHEN version = 0 THEN 1 ELSE 734539939 END; -- Bech32m (BIP 350)
    RETURN prefix || '1' || encode(substr(vc.bech32_characters(version), 4) || substr(written, 1, size)
        || vc.bech32_characters(checksum >> 10) || substr(vc.bech32_characters((checksum & 1023) << 10), 1, 2), 'escape');
END;
$$;
COMMENT ON FUNCTION vc.segwit_address(text, integer, bytea) IS 'The address of a witness program: Bech32 (BIP 173) for version 0, Bech32m (BIP 350) for later ones.';

CREATE FUNCTION vc.type_on(network text, script bytea, script_type text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN network LIKE '%:' AND vc.witness_version(script) IS NOT NULL THEN 'nonstandard'
    WHEN network NOT LIKE '%:mweb' OR octet_length(script) <> 34 THEN script_type
    WHEN substr(script, 1, 2) = '\x5820' THEN 'witness_mweb_hogaddr'
    WHEN substr(script, 1, 2) = '\x5920' THEN 'witness_mweb_pegin'
    ELSE script_type END;
COMMENT ON FUNCTION vc.type_on(text, bytea, text) IS 'The type of a script that has this type on Bitcoin: on a network of Bitcoin, or with the address form of another coin.';

CREATE OR REPLACE FUNCTION vc.addresses(script bytea, script_type text, network text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN network LIKE '%:%' THEN CASE
        WHEN script_type IN ('witness_v0_keyhash', 'witness_v0_scripthash', 'witness_v1_taproot', 'anchor', 'witness_unknown')
        THEN CASE split_part(network, ':', 4) WHEN '' THEN '{}'
            ELSE ARRAY[vc.segwit_address(split_part(network, ':', 4), vc.witness_version(script), substr(script, 3))] END
        WHEN script_type = 'pubkeyhash' THEN ARRAY[vc.base58_address(decode(split_part(network, ':', 1), 'hex') || substr(script, 4, 20))]
        WHEN script_type = 'scripthash' THEN ARRAY[vc.base58_address(decode(split_part(network, ':', 2), 'hex') || substr(script, 3, 20))]
        ELSE '{}' END
    WHEN script_type IN ('witness_v0_keyhash', 'witness_v0_scripthash', 'witness_v1_taproot', 'anchor', 'witness_unknown')
    THEN ARRAY[vc.segwit_address(CASE network WHEN 'mainnet' THEN 'bc' WHEN 'regtest' THEN 'bcrt' ELSE 'tb' END,
        vc.witness_version(script), substr(script, 3))]
    WHEN script_type = 'pubkeyhash'
    THEN ARRAY[vc.base58_address(CASE network WHEN 'mainnet' THEN '\x00'::bytea ELSE '\x6f' END || substr(script, 4, 20))]
    WHEN script_type = 'scripthash'
    THEN ARRAY[vc.base58_address(CASE network WHEN 'mainnet' THEN '\x05'::bytea ELSE '\xc4' END || substr(script, 3, 20))]
    ELSE '{}' END;
COMMENT ON FUNCTION vc.addresses(bytea, text, text) IS 'The address of a script of a type that has one, on a network of Bitcoin, or with the address form of another coin; no type has more than one.';

CREATE OR REPLACE FUNCTION vc.outputs(raw bytea, network text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SECURITY DEFINER COST 700
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    outputs jsonb[] := '{}';
    is_other_coin CONSTANT boolean := network LIKE '%:%';
    at integer;
    size integer;
    script bytea;
    script_type text;
    value bigint;
BEGIN
    raw := raw || ''; -- fetched and decompressed once, not by each function that looks at a part
    at := CASE WHEN get_byte(raw, 4) = 0 THEN 6 ELSE 4 END;
    size := vc.count_at(raw, at);
    at := at + vc.count_size(raw, at);
    FOR n IN 1 .. size LOOP
        at := at + 36;
        at := at + vc.count_size(raw, at) + vc.count_at(raw, at) + 4;
    END LOOP;
    size := vc.count_at(raw, at);
    at := at + vc.count_size(raw, at);
    FOR n IN 0 .. size - 1 LOOP
        value := vc.int64(raw, at);
        size := vc.count_at(raw, at + 8);
        at := at + 8 + vc.count_size(raw, at + 8);
        script := substr(raw, at + 1, size);
        at := at + size;
        script_type := vc.script_type(script);
        IF is_other_coin THEN
            script_type := vc.type_on(network, script, script_type);
        END IF;
        outputs := array_append(outputs, jsonb_build_object('n', n, 'value', value, 'script_pubkey', encode(script, 'hex'),
            'type', script_type, 'addresses', vc.addresses(script, script_type, network)));
    END LOOP;
    RETURN to_jsonb(outputs);
END;
$$;
COMMENT ON FUNCTION vc.outputs(bytea, text) IS 'The outputs of a transaction on a network of Bitcoin, or with the address form of another coin.';

CREATE OR REPLACE FUNCTION vc.senders(raw bytea, spent bytea, unusual_keys jsonb, network text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SECURITY DEFINER COST 1000
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    senders jsonb[] := '{}';
    is_other_coin CONSTANT boolean := network LIKE '%:%';
    at integer;
    spent_at integer := 0;
    witness_at integer;
    has_witness boolean;
    inputs integer;
    size integer;
    script bytea;
    script_type text;
    shown_type text;
    operations bytea[];
    stack bytea[];
    only_pushed boolean;
    witness bytea[];
BEGIN
    raw := raw || ''; -- fetched and decompressed once, not by each function that looks at a part
    spent := spent || '';
    unusual_keys := unusual_keys || '{}';
    has_witness := get_byte(raw, 4) = 0;
    at := CASE WHEN has_witness THEN 6 ELSE 4 END;
    inputs := vc.count_at(raw, at);
    at := at + vc.count_size(raw, at);
    IF has_witness THEN
        witness_at := at;
        FOR n IN 1 .. inputs LOOP
            witness_at := witness_at + 36;
            witness_at := witness_at + vc.count_size(raw, witness_at) + vc.count_at(raw, witness_at) + 4;
        END LOOP;
        size := vc.count_at(raw, witness_at);
        witness_at := witness_at + vc.count_size(raw, witness_at);
        FOR n IN 1 .. size LOOP
            witness_at := witness_at + 8;
            witness_at := witness_at + vc.count_size(raw, witness_at) + vc.count_at(raw, witness_at);
        END LOOP;
    END IF;
    FOR n IN 0 .. inputs - 1 LOOP
        script := substr(spent, spent_at + 9 + vc.count_size(spent, spent_at + 8), vc.count_at(spent, spent_at + 8));
        script_type := CASE WHEN vc.is_substitute(script) THEN 'nonstandard' ELSE vc.script_type(script) END;
        shown_type := script_type;
        IF is_other_coin THEN
            shown_type := vc.type_on(network, script, script_type);
        END IF;
        size := vc.count_at(raw, at + 36);
        stack := '{}';
        only_pushed := true;
        IF size > 0 THEN
            operations := vc.operations(substr(raw, at + 37 + vc.count_size(raw, at + 36), size));
            stack := vc.pushes(operations);
            only_pushed := vc.only_push(operations);
        END IF;
        witness := '{}';
        IF has_witness THEN
            size := vc.count_at(raw, witness_at);
            witness_at := witness_at + vc.count_size(raw, witness_at);
            FOR item IN 1 .. size LOOP
                size := vc.count_at(raw, witness_at);
                witness_at := witness_at + vc.count_size(raw, witness_at);
                witness := array_append(witness, substr(raw, witness_at + 1, size));
                witness_at := witness_at + size;
            END LOOP;
        END IF;
        senders := array_append(senders, jsonb_build_object(
            'txid', encode(int8send(vc.int64(raw, at + 24)) || int8send(vc.int64(raw, at + 16))
                || int8send(vc.int64(raw, at + 8)) || int8send(vc.int64(raw, at)), 'hex'),
            'vout', vc.uint32(raw, at + 32),
            'value', vc.int64(spent, spent_at),
            'script_pubkey', encode(script, 'hex'),
            'type', shown_type,
            'addresses', vc.addresses(script, shown_type, network),
            'public_keys', coalesce(unusual_keys -> n::text, to_jsonb(vc.public_keys(script, script_type, stack, witness))),
            'sighash', vc.sighash(script, script_type, stack, only_pushed, witness)));
        at := at + 40 + vc.count_size(raw, at + 36) + vc.count_at(raw, at + 36);
        spent_at := spent_at + 8 + vc.count_size(spent, spent_at + 8) + octet_length(script);
    END LOOP;
    RETURN to_jsonb(senders);
END;
$$;
COMMENT ON FUNCTION vc.senders(bytea, bytea, jsonb, text) IS 'For each input of a transaction on a network the output that it spends, and what spending it reveals.';

CREATE OR REPLACE FUNCTION virtualchain.script_of(address text) RETURNS bytea
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    form CONSTANT text := (SELECT address_form FROM vc.deployment);
    prefix CONSTANT text := substring(lower(address)
        FROM '^(' || coalesce(nullif(split_part(form, ':', 4), ''), 'bc|tb|bcrt') || ')1[02-9ac-hj-np-z]{8,80}$');
    symbols text;
    bits bit varying := '';
    number numeric := 0;
    bytes bytea := '';
    script bytea;
    network CONSTANT text := CASE WHEN form IS NOT NULL THEN form WHEN prefix = 'bc' OR address ~ '^[13]' THEN 'mainnet' WHEN prefix = 'bcrt' THEN 'regtest' ELSE 'testnet3' END;
BEGIN
    IF prefix IS NOT NULL AND address IN (lower(address), upper(address)) THEN
        address := lower(address);
        symbols := translate(substr(address, length(prefix) + 2),
            'qpzry9x8gf2tvdw0s3jn54khce6mua7l', ' !"#$%&''()*+,-./0123456789:;<=>?');
        FOR place IN 2 .. length(symbols) - 6 LOOP
            bits := bits || (ascii(substr(symbols, place, 1)) & 31)::bit(5);
        END LOOP;
        FOR place IN 0 .. length(bits) / 8 - 1 LOOP
            bytes := bytes || set_byte('\x00', 0, substring(bits FROM 8 * place + 1 FOR 8)::bit(8)::integer);
        END LOOP;
        script := set_byte('\x00', 0, CASE left(symbols, 1) WHEN ' ' THEN 0 ELSE (ascii(symbols) & 31) + 80 END)
            || set_byte('\x00', 0, length(bytes)) || bytes;
    ELSIF address ~ '^[1-9A-HJ-NP-Za-km-z]{25,35}$' THEN
        FOR place IN 1 .. length(address) LOOP
            number := number * 58 + strpos('123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz', substr(address, place, 1)) - 1;
        END LOOP;
        WHILE number > 0 OR octet_length(bytes) < 25 LOOP
            bytes := set_byte('\x00', 0, mod(number, 256)::integer) || bytes;
            number := div(number, 256);
        END LOOP;
        script := CASE WHEN encode(substr(bytes, 1, octet_length(bytes) - 24), 'hex') = ANY (
                CASE WHEN form IS NULL THEN ARRAY['00', '6f'] ELSE ARRAY[split_part(form, ':', 1)] END)
            THEN '\x76a914'::bytea || substr(bytes, octet_length(bytes) - 23, 20) || '\x88ac'
            ELSE '\xa914'::bytea || substr(bytes, octet_length(bytes) - 23, 20) || '\x87' END;
        IF address = vc.base58_address(decode(nullif(split_part(form, ':', 3), ''), 'hex') || substr(bytes, octet_length(bytes) - 23, 20)) THEN
            RETURN script;
        END IF;
    END IF;
    -- Written again, it has the right checksum, version and padding.
    IF address = ANY(vc.addresses(script, vc.type_on(network, script, vc.script_type(script)), network)) THEN
        RETURN script;
    END IF;
    RAISE EXCEPTION 'not an address: %', quote_literal(left(address, 100)) USING ERRCODE = 'invalid_parameter_value';
END;
$$;
COMMENT ON FUNCTION virtualchain.script_of(text) IS 'The output script that an address of any Bitcoin network stands for, or of the deployment''s if that is another coin''s: to look for it in inputs.spent and inputs.raw is faster than to compute the addresses of every row.';

CREATE OR REPLACE VIEW virtualchain.inputs AS
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics,
    CASE WHEN txindex = 0 THEN '[]' ELSE vc.senders(raw, spent, unusual_keys, (SELECT coalesce(address_form, network) FROM vc.deployment)) END AS senders,
    vc.outputs(raw, (SELECT coalesce(address_form, network) FROM vc.deployment)) AS outputs, fee, raw, evidence, spent,
    (SELECT array_agg(s.at / 2 ORDER BY s.n) FROM unnest(spent_at) WITH ORDINALITY AS s (at, n)) AS heights,
    coalesce(tracked_by, '{}') AS tracked_by, i.branch, c.coinbase, c.branch AS coinbase_branch, spent_at
FROM vc.inputs AS i
LEFT JOIN vc.coinbases AS c USING (block_id)
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
