CREATE TABLE runes (
    id text COLLATE "C" PRIMARY KEY,
    block integer NOT NULL,
    tx integer NOT NULL,
    number integer NOT NULL UNIQUE,
    name text COLLATE "C" NOT NULL UNIQUE,
    spaced_name text COLLATE "C" NOT NULL,
    spacers integer NOT NULL,
    divisibility integer NOT NULL,
    symbol text COLLATE "C",
    symbol_code integer,
    premine numeric(39) NOT NULL,
    has_terms boolean NOT NULL,
    mint_amount numeric(39),
    mint_cap numeric(39),
    height_start numeric(20),
    height_end numeric(20),
    offset_start numeric(20),
    offset_end numeric(20),
    mints numeric(39) NOT NULL,
    burned numeric(39) NOT NULL,
    turbo boolean NOT NULL,
    etching text COLLATE "C" NOT NULL,
    "timestamp" bigint NOT NULL
);
CREATE INDEX runes_etching ON runes (etching);
COMMENT ON TABLE runes IS 'Every rune that was ever etched.';
COMMENT ON COLUMN runes.id IS 'The block and the position there of the transaction that etched it, as block:tx.';
COMMENT ON COLUMN runes.block IS 'The block of the etching.';
COMMENT ON COLUMN runes.tx IS 'The position of the etching in its block.';
COMMENT ON COLUMN runes.number IS 'How many runes were etched before it.';
COMMENT ON COLUMN runes.name IS 'The name, without spacers.';
COMMENT ON COLUMN runes.spaced_name IS 'The name as it is shown, with a bullet for each spacer.';
COMMENT ON COLUMN runes.spacers IS 'Where the bullets are: bit i stands for the one after letter i, counted from 0.';
COMMENT ON COLUMN runes.divisibility IS 'The number of digits after the point: all amounts count the smallest unit, 1 / 10^divisibility.';
COMMENT ON COLUMN runes.symbol IS 'The currency sign; null if it has none, or NUL, which text cannot hold.';
COMMENT ON COLUMN runes.symbol_code IS 'The code point of the currency sign; null if it has none.';
COMMENT ON COLUMN runes.premine IS 'The amount that the etching itself made.';
COMMENT ON COLUMN runes.has_terms IS 'Whether it was etched with terms for minting.';
COMMENT ON COLUMN runes.mint_amount IS 'The amount that each mint makes; null if the terms name none, which means 0.';
COMMENT ON COLUMN runes.mint_cap IS 'How many mints there may be; null if the terms name no number, which means 0.';
COMMENT ON COLUMN runes.height_start IS 'The first block in which it can be minted; null if there is no such limit.';
COMMENT ON COLUMN runes.height_end IS 'The first block in which it can no longer be minted.';
COMMENT ON COLUMN runes.offset_start IS 'The same as height_start, counted from the block of the etching; the later of both counts.';
COMMENT ON COLUMN runes.offset_end IS 'The same as height_end, counted from the block of the etching; the earlier of both counts.';
COMMENT ON COLUMN runes.mints IS 'How often it was minted.';
COMMENT ON COLUMN runes.burned IS 'The amount that was burned.';
COMMENT ON COLUMN runes.turbo IS 'Whether it opted in to changes of the protocol to come.';
COMMENT ON COLUMN runes.etching IS 'The transaction that etched it.';
COMMENT ON COLUMN runes."timestamp" IS 'The time of the etching''s block in Unix seconds, as its miner wrote it.';

CREATE TABLE outputs (
    txid text COLLATE "C" NOT NULL,
    vout integer NOT NULL,
    rune text COLLATE "C" NOT NULL,
    amount numeric(39) NOT NULL,
    address text COLLATE "C",
    PRIMARY KEY (txid, vout, rune)
);
CREATE INDEX outputs_rune ON outputs (rune, address);
CREATE INDEX outputs_address ON outputs (address);
COMMENT ON TABLE outputs IS 'The unspent outputs that hold runes: one row for each output and rune.';
COMMENT ON COLUMN outputs.txid IS 'The transaction that made the output.';
COMMENT ON COLUMN outputs.vout IS 'The output''s position in it.';
COMMENT ON COLUMN outputs.rune IS 'The rune, as in runes.id.';
COMMENT ON COLUMN outputs.amount IS 'How much of it the output holds, in its smallest unit.';
COMMENT ON COLUMN outputs.address IS 'The output''s address; null if its script has none.';

CREATE TABLE rune_events (
    block_id integer NOT NULL,
    txindex integer NOT NULL,
    event integer NOT NULL,
    txid text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    rune text COLLATE "C",
    amount numeric(39),
    vin integer,
    vout integer,
    address text COLLATE "C",
    flaw text COLLATE "C",
    PRIMARY KEY (block_id, txindex, event)
);
CREATE INDEX rune_events_txid ON rune_events (txid);
CREATE INDEX rune_events_rune ON rune_events (rune, block_id, txindex);
CREATE INDEX rune_events_address ON rune_events (address, block_id, txindex);
COMMENT ON TABLE rune_events IS 'What each transaction did with runes. What it spent, etched and minted is as much as what it transferred and burned.';
COMMENT ON COLUMN rune_events.block_id IS 'The block that holds the transaction.';
COMMENT ON COLUMN rune_events.txindex IS 'The transaction''s position there.';
COMMENT ON COLUMN rune_events.event IS 'The event''s position among those of the transaction, from 0.';
COMMENT ON COLUMN rune_events.txid IS 'The transaction.';
COMMENT ON COLUMN rune_events.kind IS 'cenotaph: its message is malformed; spent: an input brought an amount; etched: it made a rune, with the premine as amount; minted: it made an amount; transferred: an output received an amount; burned: an amount is gone.';
COMMENT ON COLUMN rune_events.rune IS 'The rune, as in runes.id; null for a cenotaph.';
COMMENT ON COLUMN rune_events.amount IS 'The amount, in the rune''s smallest unit; null for a cenotaph.';
COMMENT ON COLUMN rune_events.vin IS 'The input that was spent; null for other events.';
COMMENT ON COLUMN rune_events.vout IS 'The output that received the amount, or burned it as an OP_RETURN; null for other events.';
COMMENT ON COLUMN rune_events.address IS 'The address of that output, or of the one that was spent; null if it has none.';
COMMENT ON COLUMN rune_events.flaw IS 'What is malformed; null unless the event is a cenotaph.';

CREATE TABLE counters (
    name text COLLATE "C" PRIMARY KEY,
    value integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE counters IS 'Counts that would take long to compute.';
COMMENT ON COLUMN counters.name IS 'runes: how many runes were etched.';
COMMENT ON COLUMN counters.value IS 'The count.';
