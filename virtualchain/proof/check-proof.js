/* Checks proofs of virtualchain (docs/protocol/proofs.md) in a browser or in Node.
 *
 * checkProof(proof, trusted, known): the text of a proof file, or its bytes (Uint8Array); the hash that you trust;
 * and what else you know: app, at (the block of the hash); for ops absent (an op, in hex, that the block must not
 * have), network, header (where the headers must lead); for a row table and key (a list of texts).
 * Returns what `virtualchain check-proof --json` prints; throws an Error if the proof does not hold. */
(() => {
"use strict";

function need(condition, complaint) {
	if (!condition) throw new Error(complaint);
}

// Hashes, of bytes in hex. WebCrypto is asynchronous, and not for file:// pages.

const reversed = (hex) => (hex.match(/../g) || []).reverse().join("");
const utf8 = (text) => Array.from(new TextEncoder().encode(text), (byte) => hexOf(byte, 2)).join("");
const hexOf = (number, size) => (number >>> 0).toString(16).padStart(size, "0");
const rol = (x, n) => x << n | x >>> 32 - n;

function padded(hex, isLittle) {
	const size = hex.length / 2, view = new DataView(new ArrayBuffer(size + 72 >> 6 << 6));
	for (let i = 0; i < size; i++) view.setUint8(i, parseInt(hex.slice(2 * i, 2 * i + 2), 16));
	view.setUint8(size, 0x80);
	view.setUint32(view.byteLength - (isLittle ? 8 : 4), 8 * size, isLittle);
	return view;
}

const PRIMES = [2];
for (let n = 3; PRIMES.length < 64; n += 2) if (PRIMES.every((prime) => n % prime)) PRIMES.push(n);
const fraction = (x) => x % 1 * 2 ** 32 | 0;
const ROUNDS = PRIMES.map((prime) => fraction(Math.cbrt(prime)));

function sha256(hex) {
	const view = padded(hex), w = [];
	let state = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
	for (let at = 0; at < view.byteLength; at += 64) {
		let [a, b, c, d, e, f, g, h] = state;
		for (let i = 0; i < 64; i++) {
			const x = w[i - 15], y = w[i - 2];
			w[i] = i < 16 ? view.getInt32(at + 4 * i) : w[i - 16] + (rol(x, 25) ^ rol(x, 14) ^ x >>> 3) +
				w[i - 7] + (rol(y, 15) ^ rol(y, 13) ^ y >>> 10) | 0;
			const one = h + (rol(e, 26) ^ rol(e, 21) ^ rol(e, 7)) + (e & f ^ ~e & g) + ROUNDS[i] + w[i];
			const two = (rol(a, 30) ^ rol(a, 19) ^ rol(a, 10)) + (a & b ^ a & c ^ b & c);
			[a, b, c, d, e, f, g, h] = [one + two | 0, a, b, c, d + one | 0, e, f, g];
		}
		state = [a, b, c, d, e, f, g, h].map((word, i) => word + state[i] | 0);
	}
	return state.map((word) => hexOf(word, 8)).join("");
}

const sha256d = (hex) => sha256(sha256(hex));

// RIPEMD-160: where each round takes the words of the next from, and by how much each round shifts each word
const ORDER = "74d1a6f3c0952eb8";
const SHIFTS = "befc5879bdef6798cdbf6997cfbd7877dfeb7768dedc5569ebce8655fcfe9986fcdd9586ebcb8655";
const MIXES = [
	(x, y, z) => x ^ y ^ z, (x, y, z) => x & y | ~x & z, (x, y, z) => (x | ~y) ^ z,
	(x, y, z) => x & z | y & ~z, (x, y, z) => x ^ (y | ~z),
];

function consensusHash(hashes) {
	const view = padded(sha256(merkle(hashes)[0]), true); // one block
	const start = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
	const [left, right] = [0, 1].map((line) => {
		let [a, b, c, d, e] = start;
		for (let i = 0; i < 80; i++) {
			const round = i >> 4, root = line ? Math.cbrt([2, 3, 5, 7, 0][round]) : Math.sqrt([0, 2, 3, 5, 7][round]);
			let word = (line ? 9 * i + 5 : i) % 16;
			for (let n = 0; n < round; n++) word = parseInt(ORDER[word], 16);
			const sum = a + MIXES[line ? 4 - round : round](b, c, d) + view.getInt32(4 * word, true) + (root * 2 ** 30 | 0);
			[a, b, c, d, e] = [e, rol(sum, parseInt(SHIFTS[16 * round + word], 16)) + e | 0, b, rol(c, 10), d];
		}
		return [b, c, d, e, a];
	});
	const words = [0, 1, 2, 3].map((i) => start[i + 1] + left[i + 1] + right[(i + 2) % 5]);
	return words.map((word) => reversed(hexOf(word, 8))).join("");
}

/** The root of a tree of consensus.md, and whether no shorter list has it. */
function merkle(hashes) {
	let row = hashes.sort().map(reversed), isShortest = true;
	while (row.length > 1) {
		const size = row.length, nodes = [];
		if (size > 2 && size % 2 === 0 && row[size - 1] === row[size - 2]) isShortest = false;
		for (let i = 0; i < size; i += 2) nodes.push(sha256d(row[i] + (row[i + 1] || row[i])));
		row = nodes;
	}
	return [reversed(row[0]), isShortest];
}

// Reading

function read(proof) {
	let text = proof, keys = 0, value;
	try { // ignoreBOM keeps a byte order mark, which is not JSON
		if (typeof proof !== "string") text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(proof);
		value = JSON.parse(text, function (_, item) {
			keys += !Array.isArray(this);
			return item;
		});
	} catch (error) {
		need(false, `not JSON in UTF-8: ${error.message}`);
	}
	need(new TextEncoder().encode(text).length <= 2 ** 26, "the file is too long");
	// JSON.parse rounds numbers, and takes one of two equal keys: look at what is outside of strings.
	const bare = text.replace(/\\./g, "").replace(/"[^"]*"/g, "");
	need(!/[-.]|\d[eE]/.test(bare), "a number is not written with digits alone");
	need(bare.split(":").length === keys, "an object has a key twice"); // the whole counts as one key
	return value;
}

// Shapes: functions of a value and its name that return the value, or throw

const shape = (what, test) => (value, name) => {
	need(test(value), `${name} is not ${what}`);
	return value;
};
const string = (what, wrong, fits = () => true) => shape(what, (value) =>
	typeof value === "string" && !wrong.test(value) && fits(value.length));
const text = string("well-formed text", /[\ud800-\udfff]/u);
const bytes = string("bytes in lower-case hex", /[^0-9a-f]/, (length) => length % 2 === 0);
const digits = (size) => string(`${size} lower-case hex digits`, /[^0-9a-f]/, (length) => length === size);
const hash = digits(64), shortHash = digits(32);
const network = string("a network", // signet-0a03cf40 is signet
	/^(?!(mainnet|testnet[34]|regtest|signet(-(?!0a03cf40)[0-9a-f]{8})?)$)/);
const whole = shape("a whole number below 2^31", (value) => Number.isInteger(value) && value < 2 ** 31);
const count = shape("a whole number below 2^53", Number.isSafeInteger);
const any = shape("", () => true);
const except = (other, item) => (value, name) => value === other ? value : item(value, name);
const list = (item) => (value, name) => {
	need(Array.isArray(value), `${name} is not a list`);
	return value.map((one, i) => item(one, `${name}[${i}]`));
};
/** Returns the object with its keys in this order. */
const record = (items) => (value, name) => {
	const keys = Object.keys(items);
	need(Object(value) === value && Object.keys(value).every((key) => keys.includes(key)), `${name} has other keys`);
	return Object.fromEntries(keys.map((key) => [key, items[key](value[key], `${name}.${key}`)]));
};

const OPS = record({
	format: any, app: text, first_block_id: whole, ops: list(bytes), index: except(null, whole),
	hops: list(record({ block_id: whole, ops_hash: hash, prior: any })),
	spv: except(undefined, record({
		network, txindex: whole, transaction: bytes, branch: list(hash), coinbase: bytes,
		coinbase_branch: list(hash), headers: list(digits(160)),
	})),
});
const ROW = record({
	format: any, table: text, key: list(text),
	state: record({ // sorted, to be hashed
		app: text, block_hash: hash, block_id: whole, consensus_hash: shortHash, genesis_hash: hash, state_hash: hash,
		tables: list(record({ columns: list(text), key: list(text), name: text, root: hash, rows: count })),
	}),
	rows: list(record({ index: count, values: list(except(null, text)), path: list(hash) })),
});

function agree(known, shown) {
	for (const name in known) {
		const [one, other] = [known, shown].map((values) => JSON.stringify(values[name]));
		need(known[name] == null || one === other, `${name} must be ${one}, and is ${other || "not shown"}`);
	}
}

// Ops

function checkOps(proof, trusted, known) {
	const { app, first_block_id, hops, ops, index, spv } = OPS(proof, "proof"), isList = index === null;
	need(hops.length, "there are no hops");
	const at = hops[0].block_id, { block_id, ops_hash } = hops[hops.length - 1];
	let expected = { [at]: shortHash(trusted, "the trusted hash") };
	for (const { block_id, ops_hash, prior } of hops) {
		const name = `block ${block_id}`, items = {};
		need(block_id >= first_block_id, `${name} is below the first one`);
		for (let gap = 1; block_id - gap >= first_block_id; gap += gap + 1) items[block_id - gap] = shortHash;
		const before = record(items)(prior, `prior of ${name}`), hashes = Object.values(before);
		need(new Set(hashes).size === hashes.length, `prior of ${name} has a hash twice`);
		need(consensusHash([ops_hash, ...hashes]) === expected[block_id], `${name} does not lead to the trusted hash`);
		expected = before;
	}
	need(ops.every((op) => /^(..)?3a/.test(op)), "an op has no colon");
	const [root, isShortest] = merkle((ops.length ? ops : [""]).map(sha256d));
	need(root === ops_hash && isShortest, "the ops are not the shortest list with the ops hash");
	need(isList ? !spv : index < ops.length, "index is wrong");
	const chain = spv ? checkSpv(spv, block_id) : null, absent = known.absent && bytes(known.absent, "absent");
	agree(known, {
		app, at, absent: isList && absent && !ops.includes(absent) ? absent : undefined,
		header: chain?.last_block_hash, network: spv ? spv.network : known.network,
	});
	return {
		kind: isList ? "ops" : "op", app, first_block_id, trusted_block_id: at, block_id,
		op: isList ? null : ops[index], ops, spv: chain,
	};
}

// Proof of work

function checkSpv({ network, txindex, transaction, branch, coinbase, coinbase_branch, headers }, height) {
	const chain = readHeaders(headers, height, network), first = chain[0], last = chain[chain.length - 1];
	readInputs(transaction);
	const [[spent, script], second] = readInputs(coinbase), size = 40 - Math.clz32(height) >> 3; // with a sign
	const pushed = height < 17 ? hexOf(0x50 + height) : hexOf(size, 2) + reversed(hexOf(height, 2 * size));
	need(spent === "00".repeat(32) + "ffffffff" && !second && (txindex || transaction === coinbase) &&
		(height < ({ mainnet: 227931, testnet3: 21111 }[network] || 1) || script.startsWith(pushed)),
	"the coinbase is not that of the block");
	need(branch.length < 16 && branch.length === coinbase_branch.length && txindex < 2 ** branch.length &&
		climb(transaction, txindex, branch) === first.root && climb(coinbase, 0, coinbase_branch) === first.root,
	"a branch does not lead to the header");
	const work = chain.slice(1).reduce((sum, { target }) => sum + 2n ** 256n / (target + 1n), 0n);
	return {
		network, block_hash: first.hash, txindex, txid: reversed(sha256d(transaction)),
		last_block_id: height + chain.length - 1, last_block_hash: last.hash,
		blocks_on_top: chain.length - 1, work_on_top: work.toString(16),
	};
}

/** What each input of a transaction spends, and its script. */
function readInputs(transaction) {
	let at = 0;
	const take = (size) => transaction.slice(at, at += 2 * size);
	const number = () => {
		const first = parseInt(take(1), 16), size = 2 ** (first - 0xfc);
		if (!(first > 0xfc)) return first;
		const value = parseInt(reversed(take(size)), 16);
		return value < (size > 2 ? 2 ** (4 * size) : 0xfd) ? NaN : value; // fewer bytes would do
	};
	const items = (item) => {
		const found = [];
		for (let left = number(); left > 0 && at < transaction.length; left--) found.push(item());
		return found;
	};
	take(4);
	const inputs = items(() => [take(36), take(number()), take(4)]);
	items(() => take(8) + take(number()));
	take(4);
	const isWhole = inputs.length && at === transaction.length && at !== 128; // 64 bytes: a node of the tree
	need(isWhole, "a transaction has no inputs, or a wrong length");
	return inputs;
}

function climb(transaction, place, branch) {
	return branch.reduce((node, sibling, level) => {
		if (!(place >> level & 1)) return sha256d(node + sibling);
		return node !== sibling && sha256d(sibling + node); // not the repeated end of a row
	}, sha256d(transaction));
}

const targetOf = (bits) => BigInt(bits & 0x7fffff) << BigInt(8 * ((bits >>> 24) - 3)); // or >>, if below 0

function bitsOf(target) {
	const size = target.toString(16).length + 1 >> 1, mantissa = Number(target >> BigInt(8 * size - 24));
	return mantissa >> 23 ? (size + 1) * 2 ** 24 + (mantissa >> 8) : size * 2 ** 24 + mantissa;
}

function readHeaders(headers, lowest, network) {
	const isTestnet4 = network === "testnet4", eases = /^t/.test(network), retargets = !/^r|-/.test(network);
	const limit = /^r/.test(network) ? 2n ** 255n - 1n : /^s/.test(network) ? 0x377aen << 216n : 0xffffn << 208n;
	const adjusted = (target, seconds) => {
		const result = target * BigInt(Math.min(Math.max(seconds, 302400), 4838400)) / 1209600n;
		return bitsOf(result < limit ? result : limit);
	};
	const chain = [];
	let usual; // the bits of headers that are not eased, once they are known
	need(headers.length, "there are no headers");
	for (const header of headers) {
		const field = (at, size) => reversed(header.slice(2 * at, 2 * (at + size)));
		const hash = reversed(sha256d(header)), time = parseInt(field(68, 4), 16), bits = parseInt(field(72, 4), 16);
		const check = (condition, what) => need(condition, `header ${hash} has a wrong ${what}`);
		const target = targetOf(bits), place = chain.length, starts = (lowest + place) % 2016 === 0;
		check(!(bits & 0x800000) && target > 0n && target <= limit, "target");
		check(BigInt("0x" + hash) <= target, "proof of work");
		if (place) {
			const before = chain[place - 1], first = chain[place - 2016];
			let isRight = !usual || bits === usual;
			if (starts && first) {
				isRight = bits === adjusted((isTestnet4 ? first : before).target, before.time - first.time);
			} else if (starts) {
				const [hardest, softest] = [0, Infinity].map((seconds) => targetOf(adjusted(before.target, seconds)));
				isRight = isTestnet4 || hardest <= target && target <= softest;
			} else if (eases && time > before.time + 1200) isRight = bits === bitsOf(limit);
			check(isRight || !retargets, "target");
			check(field(4, 32) === before.hash, "parent");
			const times = chain.slice(-11).map((one) => one.time).sort((a, b) => a - b);
			check(place < 11 && lowest || time > times[times.length >> 1], "time");
			check(!isTestnet4 || !starts || time >= before.time - 600, "time");
		}
		if (!eases || starts || bits !== bitsOf(limit)) usual = bits;
		chain.push({ hash, time, target, root: header.slice(72, 136) });
	}
	return chain;
}

// Rows

/** The texts of a key as one, which compares like keys: by bytes of UTF-8, where a prefix comes first. */
const keyOf = (texts) => texts.map(utf8).join();

function checkRow(proof, trusted, known) {
	const { state, table: name, key, rows } = ROW(proof, "proof"), { app, block_id, block_hash, genesis_hash } = state;
	state.tables.forEach(({ columns, key, name }, i, { [i - 1]: before }) => {
		need((!before || utf8(before.name) < utf8(name)) && [columns, key].every((names) => new Set(names).size === names.length) &&
			key.every((column) => columns.includes(column)), `the table ${name} is not in order`);
	});
	need(sha256("02" + utf8(JSON.stringify(state))) === hash(trusted, "the trusted hash"), "the state has another root");
	const table = state.tables.find((one) => one.name === name);
	need(table && key.length === table.key.length, "there is no such table, or its key is another");
	const { columns, root, rows: size } = table, sought = keyOf(key);
	const found = rows.map(({ index, values, path }) => {
		need(values.length === columns.length, "a row has more or fewer values than columns");
		need(rootOf(sha256("00" + utf8(JSON.stringify([name, ...values]))), index, size, path) === root,
			"a path does not lead to the table's root");
		const texts = table.key.map((column) => values[columns.indexOf(column)]);
		need(!texts.includes(null), "a row has a null in its key");
		return keyOf(texts);
	});
	const [one, two] = rows.map(({ index }) => index), exists = rows.length === 1 && found[0] === sought;
	need(exists || [
		size === 0,
		one === (found[0] > sought ? 0 : size - 1),
		two === one + 1 && found[0] < sought && sought < found[1],
	][rows.length], "the rows are not the neighbors of the key");
	agree(known, { app, at: block_id, table: name, key });
	const named = (names, texts) => Object.fromEntries(names.map((column, i) => [column, texts[i]]));
	return {
		kind: "row", app, block_id, block_hash, genesis_hash, table: name,
		key: named(table.key, key), row: exists ? named(columns, rows[0].values) : null,
	};
}

function rootOf(node, index, size, path) {
	const half = (number) => Math.floor(number / 2); // up to 2^53 rows: no >>
	let last = size - 1;
	if (index > last) return null;
	for (const sibling of path) {
		if (!last) return null;
		for (; index === last && index % 2 === 0; last = half(last)) index = half(index);
		node = sha256("01" + (index % 2 ? sibling + node : node + sibling));
		[index, last] = [half(index), half(last)];
	}
	return !last && node;
}

function checkProof(proof, trusted, known = {}) {
	const value = read(proof), format = value?.format;
	if (format === "virtualchain-proof-1") return checkOps(value, trusted, known);
	need(format === "virtualchain-row-proof-1", "this is no proof, or one of an unknown format");
	return checkRow(value, trusted, known);
}

if (typeof module === "object" && module.exports) module.exports = checkProof;
else globalThis.checkProof = checkProof;
})();
