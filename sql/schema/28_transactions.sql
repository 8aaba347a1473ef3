-- What the views show of a transaction is computed from its bytes and from those of the outputs that it spends, by the
-- rules of virtualchain/bitcoin. These functions hash nothing: whether a script commits to the key or script that an
-- input reveals was checked before the row was written, and vc.inputs.unusual_keys has what they cannot see.

CREATE FUNCTION vc.uint32(data bytea, at integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (get_byte(data, at) | (get_byte(data, at + 1) << 8) | (get_byte(data, at + 2) << 16))
    | (get_byte(data, at + 3)::bigint << 24);
COMMENT ON FUNCTION vc.uint32(bytea, integer) IS 'Four bytes as a number, little-endian.';

CREATE FUNCTION vc.int64(data bytea, at integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN vc.uint32(data, at) | (vc.uint32(data, at + 4) << 32);
COMMENT ON FUNCTION vc.int64(bytea, integer) IS 'Eight bytes as a number, little-endian.';

CREATE FUNCTION vc.count_at(data bytea, at integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN get_byte(data, at) < 253 THEN get_byte(data, at)
    WHEN get_byte(data, at) = 253 THEN get_byte(data, at + 1) | (get_byte(data, at + 2) << 8)
    ELSE vc.uint32(data, at + 1)::integer END;
COMMENT ON FUNCTION vc.count_at(bytea, integer) IS 'A count or length in a transaction (Bitcoin Core''s compact size); in a block none is written in nine bytes.';

CREATE FUNCTION vc.count_size(data bytea, at integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN get_byte(data, at) < 253 THEN 1 WHEN get_byte(data, at) = 253 THEN 3 ELSE 5 END;
COMMENT ON FUNCTION vc.count_size(bytea, integer) IS 'How many bytes a count or length takes.';

CREATE FUNCTION vc.operations(script bytea) RETURNS bytea[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    operations bytea[] := '{}';
    length CONSTANT integer := octet_length(script);
    at integer := 0;
    opcode integer;
    width integer;
    size bigint;
BEGIN
    WHILE at < length LOOP
        opcode := get_byte(script, at);
        width := 1;
        size := CASE WHEN opcode < 76 THEN opcode ELSE 0 END;
        IF opcode BETWEEN 76 AND 78 THEN -- OP_PUSHDATA1, 2 and 4
            width := 1 + (1 << (opcode - 76));
            size := CASE WHEN at + width > length THEN length WHEN opcode = 76 THEN get_byte(script, at + 1)
                WHEN opcode = 77 THEN get_byte(script, at + 1) | (get_byte(script, at + 2) << 8) ELSE vc.uint32(script, at + 1) END;
        END IF;
        IF at + width + size > length THEN
            RETURN array_append(operations, NULL);
        END IF;
        operations := array_append(operations, set_byte(substr(script, at + width, 1 + size::integer), 0, opcode));
        at := at + width + size;
    END LOOP;
    RETURN operations;
END;
$$;
COMMENT ON FUNCTION vc.operations(bytea) IS 'The operations of a script: each an opcode, and the data that it pushes. A push that is truncated is null, and the last.';

CREATE FUNCTION vc.pushes(operations bytea[]) RETURNS bytea[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    pushed bytea[] := '{}';
    operation bytea;
BEGIN
    FOREACH operation IN ARRAY operations LOOP
        IF get_byte(operation, 0) <= 78 THEN -- OP_PUSHDATA4
            pushed := array_append(pushed, substr(operation, 2));
        ELSIF get_byte(operation, 0) BETWEEN 81 AND 96 THEN -- OP_1 to OP_16
            pushed := array_append(pushed, set_byte(operation, 0, get_byte(operation, 0) - 80));
        END IF;
    END LOOP;
    RETURN pushed;
END;
$$;
COMMENT ON FUNCTION vc.pushes(bytea[]) IS 'The data that operations push, up to a push that is truncated.';

CREATE FUNCTION vc.only_push(operations bytea[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    operation bytea;
BEGIN
    FOREACH operation IN ARRAY operations LOOP
        IF operation IS NULL OR get_byte(operation, 0) > 96 THEN -- OP_16
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END;
$$;
COMMENT ON FUNCTION vc.only_push(bytea[]) IS 'Whether all operations are pushes, none of them truncated. OP_RESERVED counts as a push, as in Bitcoin Core.';

CREATE FUNCTION vc.is_key(data bytea) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE octet_length(data) WHEN 33 THEN get_byte(data, 0) IN (2, 3) WHEN 65 THEN get_byte(data, 0) IN (4, 6, 7) ELSE false END;
COMMENT ON FUNCTION vc.is_key(bytea) IS 'Whether data have the form of a public key.';

CREATE FUNCTION vc.small_number(operation bytea) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN get_byte(operation, 0) BETWEEN 81 AND 96 THEN get_byte(operation, 0) - 80 -- OP_1 to OP_16
    WHEN get_byte(operation, 0) = 1 AND get_byte(operation, 1) BETWEEN 17 AND 20 THEN get_byte(operation, 1) END;
COMMENT ON FUNCTION vc.small_number(bytea) IS 'The number from 1 to 20 that an operation pushes in the one minimal form; null for any other operation.';

CREATE FUNCTION vc.multisig_keys(script bytea) RETURNS bytea[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    operations bytea[];
    keys bytea[] := '{}';
    operation bytea;
    total integer;
BEGIN
    IF substr(script, octet_length(script)) <> '\xae' THEN -- OP_CHECKMULTISIG
        RETURN keys;
    END IF;
    operations := vc.operations(script);
    total := cardinality(operations) - 3;
    IF (total > 0 AND vc.small_number(operations[1]) <= total AND vc.small_number(operations[total + 2]) = total
        AND operations[total + 3] = '\xae') IS NOT TRUE
    THEN
        RETURN keys;
    END IF;
    FOREACH operation IN ARRAY operations[2:total + 1] LOOP
        IF get_byte(operation, 0) > 78 OR NOT vc.is_key(substr(operation, 2)) THEN
            RETURN '{}';
        END IF;
        keys := array_append(keys, substr(operation, 2));
    END LOOP;
    RETURN keys;
END;
$$;
COMMENT ON FUNCTION vc.multisig_keys(bytea) IS 'The keys of a script m <key> ... n OP_CHECKMULTISIG; empty for any other script.';

CREATE FUNCTION vc.witness_version(script bytea) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(script) NOT BETWEEN 4 AND 42 THEN NULL WHEN get_byte(script, 1) + 2 <> octet_length(script) THEN NULL
    WHEN get_byte(script, 0) = 0 THEN 0 WHEN get_byte(script, 0) BETWEEN 81 AND 96 THEN get_byte(script, 0) - 80 END;
COMMENT ON FUNCTION vc.witness_version(bytea) IS 'The version of a witness program (BIP 141), whose bytes are those from the third on; null for any other script.';

CREATE FUNCTION vc.script_type(script bytea) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN vc.witness_version(script) = 0 THEN CASE octet_length(script)
        WHEN 22 THEN 'witness_v0_keyhash' WHEN 34 THEN 'witness_v0_scripthash' ELSE 'nonstandard' END
    WHEN vc.witness_version(script) > 0 THEN CASE
        WHEN substr(script, 1, 2) = '\x5120' THEN 'witness_v1_taproot'
        WHEN script = '\x51024e73' THEN 'anchor'
        ELSE 'witness_unknown' END
    WHEN octet_length(script) = 25 AND substr(script, 1, 3) = '\x76a914' AND substr(script, 24) = '\x88ac' THEN 'pubkeyhash'
    WHEN octet_length(script) = 23 AND substr(script, 1, 2) = '\xa914' AND substr(script, 23) = '\x87' THEN 'scripthash'
    WHEN substr(script, 1, 1) = '\x6a' AND vc.only_push(vc.operations(substr(script, 2))) THEN 'nulldata'
    WHEN CASE octet_length(script) WHEN 35 THEN get_byte(script, 0) = 33 WHEN 67 THEN get_byte(script, 0) = 65 ELSE false END
        AND substr(script, octet_length(script)) = '\xac' AND vc.is_key(substr(script, 2, octet_length(script) - 2)) THEN 'pubkey'
    WHEN vc.multisig_keys(script) <> '{}' THEN 'multisig'
    ELSE 'nonstandard' END;
COMMENT ON FUNCTION vc.script_type(bytea) IS 'The type of a script, as current versions of bitcoind name it.';

CREATE FUNCTION vc.base58_address(payload bytea) RETURNS text
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

CREATE FUNCTION vc.bech32_characters(symbols integer) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substr('qpzry9x8gf2tvdw0s3jn54khce6mua7l'::bytea, (symbols >> 15) + 1, 1)
    || substr('qpzry9x8gf2tvdw0s3jn54khce6mua7l'::bytea, ((symbols >> 10) & 31) + 1, 1)
    || substr('qpzry9x8gf2tvdw0s3jn54khce6mua7l'::bytea, ((symbols >> 5) & 31) + 1, 1)
    || substr('qpzry9x8gf2tvdw0s3jn54khce6mua7l'::bytea, (symbols & 31) + 1, 1);
COMMENT ON FUNCTION vc.bech32_characters(integer) IS 'The characters of an address (BIP 173) that stand for four symbols, 20 bits.';

CREATE FUNCTION vc.checksum_step(checksum integer, symbol integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ((checksum & 33554431) << 5) # ('{
            0,996825010,642813549,490396127,513874426,634080840,955357079,60538917,
            1027748829,103310447,454213040,544795138,602090023,411663765,95659082,1054471160,
            705979059,293483777,205843678,925809516,884308809,266284283,317060388,697279126,
            391532910,742131420,822533891,174885041,167200916,849157926,799524601,349016395
        }'::integer[])[((checksum >> 25) # symbol) + 1];
COMMENT ON FUNCTION vc.checksum_step(integer, integer) IS 'The checksum of a Bech32 address (BIP 173) after one more symbol.';

CREATE FUNCTION vc.checksum_steps(checksum integer, symbols integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ((checksum & 1023) << 20) # ('{
            0,583756141,394458842,894017463,764759229,257828304,974633575,417125130,
            196754771,695292990,473484169,1056154340,640643566,82057347,833455924,325512793,
            368114319,926651362,41028693,549020984,946189874,447668063,803684584,220998021,
            508217308,1015131825,164114694,721639531,870288225,286581260,610106811,110499030
        }'::integer[])[(((checksum >> 10) # symbols) >> 15) + 1] # ('{
            0,69525304,139009913,208519233,277265403,346186947,416261250,485194682,
            554529535,623488455,692350342,761311934,831244548,900666940,969070205,1038485829,
            312394999,381295567,450354062,519242934,35159820,104636468,173105269,242597709,
            865318408,934766896,1004185969,1073641033,588582387,657576651,727454346,796446130
        }'::integer[])[((((checksum >> 10) # symbols) >> 10) & 31) + 1] # ('{
            0,534243686,1027569356,585670570,721079480,892151262,398834292,135418642,
            132234585,406213695,987679637,621355763,756773345,852269191,270796589,267644491,
            223574683,310678525,812387415,800843057,665433635,947806021,446087407,88156553,
            179488706,358952612,932032782,677009512,541592442,1067442716,494370230,44078288
        }'::integer[])[((((checksum >> 10) # symbols) >> 5) & 31) + 1] # ('{
            0,996825010,642813549,490396127,513874426,634080840,955357079,60538917,
            1027748829,103310447,454213040,544795138,602090023,411663765,95659082,1054471160,
            705979059,293483777,205843678,925809516,884308809,266284283,317060388,697279126,
            391532910,742131420,822533891,174885041,167200916,849157926,799524601,349016395
        }'::integer[])[(((checksum >> 10) # symbols) & 31) + 1];
COMMENT ON FUNCTION vc.checksum_steps(integer, integer) IS 'The same as four calls of vc.checksum_step: four symbols in 20 bits, by tables of what each of them adds.';

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

CREATE FUNCTION vc.segwit_address(prefix text, version integer, program bytea) RETURNS text
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

CREATE FUNCTION vc.is_substitute(script bytea) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(script) = 39 THEN substr(script, 1, 2) = '\x6a04' AND get_byte(script, 6) = 32 ELSE false END;
COMMENT ON FUNCTION vc.is_substitute(bytea) IS 'Whether a spent script stands for a long one that was not kept: OP_RETURN, size and SHA-256.';

CREATE FUNCTION vc.type_on(network text, script bytea, script_type text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN network LIKE '%:' AND vc.witness_version(script) IS NOT NULL THEN 'nonstandard'
    WHEN network NOT LIKE '%:mweb' OR octet_length(script) <> 34 THEN script_type
    WHEN substr(script, 1, 2) = '\x5820' THEN 'witness_mweb_hogaddr'
    WHEN substr(script, 1, 2) = '\x5920' THEN 'witness_mweb_pegin'
    ELSE script_type END;
COMMENT ON FUNCTION vc.type_on(text, bytea, text) IS 'The type of a script that has this type on Bitcoin: on a network of Bitcoin, or with the address form of another coin.';

CREATE FUNCTION vc.addresses(script bytea, script_type text, network text) RETURNS text[]
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

CREATE FUNCTION vc.public_keys(script bytea, script_type text, stack bytea[], witness bytea[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF script_type = 'witness_v1_taproot' THEN
        RETURN ARRAY[encode(substr(script, 3), 'hex')];
    END IF;
    IF script_type = 'scripthash' THEN
        IF stack = '{}' THEN
            RETURN '{}';
        END IF;
        script := stack[cardinality(stack)];
        script_type := vc.script_type(script);
        stack := trim_array(stack, 1);
    END IF;
    IF script_type = 'witness_v0_keyhash' THEN
        RETURN CASE WHEN witness = '{}' THEN '{}' ELSE ARRAY[encode(witness[cardinality(witness)], 'hex')] END;
    END IF;
    IF script_type = 'witness_v0_scripthash' AND witness <> '{}' THEN
        script := witness[cardinality(witness)];
        script_type := vc.script_type(script);
        stack := trim_array(witness, 1);
    END IF;
    RETURN CASE
        WHEN script_type = 'pubkey' THEN ARRAY[encode(substr(script, 2, octet_length(script) - 2), 'hex')]
        WHEN script_type = 'pubkeyhash' AND stack <> '{}' THEN ARRAY[encode(stack[cardinality(stack)], 'hex')]
        WHEN script_type = 'multisig' THEN ARRAY(
            SELECT encode(key, 'hex') FROM unnest(vc.multisig_keys(script)) WITH ORDINALITY AS k (key, place) ORDER BY place)
        ELSE '{}' END;
END;
$$;
COMMENT ON FUNCTION vc.public_keys(bytea, text, bytea[], bytea[]) IS 'The public keys that an input reveals, if it reveals what the script that it spends commits to: a key last on the stack.';

CREATE FUNCTION vc.is_signature(item bytea) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN octet_length(item) NOT BETWEEN 9 AND 73 THEN false
    WHEN get_byte(item, 0) <> 48 OR get_byte(item, 1) <> octet_length(item) - 3 OR get_byte(item, 2) <> 2 THEN false
    WHEN 5 + get_byte(item, 3) >= octet_length(item) THEN false
    ELSE get_byte(item, 4 + get_byte(item, 3)) = 2
        AND get_byte(item, 3) + get_byte(item, 5 + get_byte(item, 3)) + 7 = octet_length(item) END;
COMMENT ON FUNCTION vc.is_signature(bytea) IS 'Whether an item has the form of an ECDSA signature with a hash type (BIP 66).';

CREATE FUNCTION vc.sighash_name(signature bytea) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE get_byte(signature, octet_length(signature) - 1) & 31 WHEN 2 THEN 'NONE' WHEN 3 THEN 'SINGLE' ELSE 'ALL' END
    || CASE WHEN get_byte(signature, octet_length(signature) - 1) > 127 THEN '|ANYONECANPAY' ELSE '' END;
COMMENT ON FUNCTION vc.sighash_name(bytea) IS 'The name of the hash type at the end of a signature: other numbers count as what the network takes them for.';

CREATE FUNCTION vc.sighash(script bytea, script_type text, stack bytea[], only_pushed boolean, witness bytea[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    version integer := vc.witness_version(script);
    signatures bytea[] := '{}';
    names text[] := '{}';
    item bytea;
BEGIN
    IF script_type = 'scripthash' THEN
        script := coalesce(stack[cardinality(stack)], '');
        script_type := vc.script_type(script);
        stack := stack[:cardinality(stack) - 1];
        -- Inside p2sh, only version 0 has a meaning.
        version := CASE WHEN only_pushed AND vc.witness_version(script) = 0 THEN 0 END;
    END IF;
    IF version > 0 THEN
        IF script_type <> 'witness_v1_taproot' THEN
            RETURN names;
        END IF;
        IF cardinality(witness) > 1 AND substr(witness[cardinality(witness)], 1, 1) = '\x50' THEN -- the annex
            witness := trim_array(witness, 1);
        END IF;
        FOREACH item IN ARRAY CASE WHEN cardinality(witness) = 1 THEN witness ELSE witness[:cardinality(witness) - 2] END LOOP
            IF octet_length(item) = 64 THEN
                names := array_append(names, 'DEFAULT');
            ELSIF octet_length(item) = 65 AND get_byte(item, 64) IN (1, 2, 3, 129, 130, 131) THEN
                names := array_append(names, vc.sighash_name(item));
            END IF;
        END LOOP;
        RETURN names;
    ELSIF version = 0 THEN
        IF witness = '{}' THEN
            RETURN names;
        END IF;
        stack := witness;
        only_pushed := true;
        script_type := 'pubkeyhash';
        IF octet_length(script) <> 22 THEN
            script := stack[cardinality(stack)];
            script_type := vc.script_type(script);
            stack := trim_array(stack, 1);
        END IF;
    END IF;
    IF script_type NOT IN ('pubkeyhash', 'pubkey', 'multisig') THEN
        FOREACH item IN ARRAY stack LOOP
            IF vc.is_signature(item) THEN
                signatures := array_append(signatures, item);
            END IF;
        END LOOP;
    ELSIF NOT only_pushed THEN -- such a script may reorder its items
        signatures := stack;
    ELSIF script_type = 'pubkeyhash' THEN
        signatures := stack[cardinality(stack) - 1:cardinality(stack) - 1];
    ELSIF script_type = 'pubkey' THEN
        signatures := stack[cardinality(stack):];
    ELSE
        signatures := stack[cardinality(stack) + 1 - vc.small_number((vc.operations(script))[1]):];
    END IF;
    FOREACH item IN ARRAY signatures LOOP
        IF item <> '' THEN
            names := array_append(names, vc.sighash_name(item));
        END IF;
    END LOOP;
    RETURN names;
END;
$$;
COMMENT ON FUNCTION vc.sighash(bytea, text, bytea[], boolean, bytea[]) IS 'What each signature of an input covers: the name of its hash type.';

CREATE FUNCTION vc.outputs(raw bytea, network text) RETURNS jsonb
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

CREATE FUNCTION vc.senders(raw bytea, spent bytea, unusual_keys jsonb, network text) RETURNS jsonb
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
