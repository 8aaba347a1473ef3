/* checkProof(proof, trusted, known): see docs/proofs.md. It does without WebCrypto, which file:// pages lack. */
(() => {
const need = (condition, message) => {
	if (!condition) throw new Error(message);
};

// Hashes, of bytes in hex

const hexOf = (number, size) => (number >>> 0).toString(16).padStart(size, "0");
const int = (hex) => parseInt(hex, 16);
const flip = (hex) => (hex.match(/../g) || []).reverse().join("");
const utf8 = (text) => Array.from(new TextEncoder().encode(text), (byte) => hexOf(byte, 2)).join("");
const rol = (x, n) => x << n | x >>> 32 - n;

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every((prime) => n % prime)) PRIMES.push(n);
const fraction = (x) => x % 1 * 2 ** 32 | 0;
const ROUNDS = PRIMES.map(Math.cbrt).map(fraction);

function sha256(hex) {
	const padded = (hex + "80").padEnd((hex.length + 145 >> 7 << 7) - 8, "0") + hexOf(4 * hex.length, 8), w = [];
	let state = PRIMES.slice(0, 8).map(Math.sqrt).map(fraction);
	for (let at = 0; at < padded.length; at += 128) {
		let words = state;
		for (let i = 0; i < 64; i++) {
			const [a, b, c, d, e, f, g, h] = words, x = w[i - 15], y = w[i - 2];
			w[i] = i < 16 ? int(padded.substr(at + 8 * i, 8)) : w[i - 16] + (rol(x, 25) ^ rol(x, 14) ^ x >>> 3) +
				w[i - 7] + (rol(y, 15) ^ rol(y, 13) ^ y >>> 10) | 0;
			const one = h + (rol(e, 26) ^ rol(e, 21) ^ rol(e, 7)) + (e & f ^ ~e & g) + ROUNDS[i] + w[i];
			const two = (rol(a, 30) ^ rol(a, 19) ^ rol(a, 10)) + (a & b ^ a & c ^ b & c);
			words = [one + two | 0, a, b, c, d + one | 0, e, f, g];
		}
		state = words.map((word, i) => word + state[i] | 0);
	}
	return state.map((word) => hexOf(word, 8)).join("");
}

const sha256d = (hex) => sha256(sha256(hex));

// RIPEMD-160: the order of words from round to round, and the shifts of words in each
const ORDER = "74d1a6f3c0952eb8";
const SHIFTS = "befc5879bdef6798cdbf6997cfbd7877dfeb7768dedc5569ebce8655fcfe9986fcdd9586ebcb8655";

function consensusHash(hashes) {
	const start = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
	const words = sha256(merkle(hashes)[0]).match(/.{8}/g).map((word) => int(flip(word)));
	words.push(128, 0, 0, 0, 0, 0, 256, 0); // padding
	const [left, right] = [[0, 2, 3, 5, 7].map(Math.sqrt), [2, 3, 5, 7, 0].map(Math.cbrt)].map((roots, line) => {
		let [a, b, c, d, e] = start;
		for (let i = 0; i < 80; i++) {
			const round = i >> 4;
			let word = (line ? 9 * i + 5 : i) % 16;
			for (let n = 0; n < round; n++) word = int(ORDER[word]);
			const mixed = [b ^ c ^ d, b & c | ~b & d, (b | ~c) ^ d, b & d | c & ~d, b ^ (c | ~d)][line ? 4 - round : round];
			const sum = a + mixed + words[word] + (roots[round] * 2 ** 30 | 0);
			[a, b, c, d, e] = [e, rol(sum, int(SHIFTS[16 * round + word])) + e | 0, b, rol(c, 10), d];
		}
		return [b, c, d, e, a];
	});
	return [1, 2, 3, 4].map((i) => flip(hexOf(start[i] + left[i] + right[(i + 1) % 5], 8))).join("");
}

/** The root, and whether no shorter list has it. */
function merkle(hashes) {
	let row = hashes.sort().map(flip), isShortest = true;
	while (row.length > 1) {
		isShortest &&= row.length < 3 || row.length % 2 || row.at(-1) !== row.at(-2);
		row = row.flatMap((node, i) => i % 2 ? [] : sha256d(node + (row[i + 1] || node)));
	}
	return [flip(row[0]), isShortest];
}

// The file

function read(proof) {
	let text = proof, keys = 0, value;
	try { // ignoreBOM keeps a byte order mark, for JSON.parse to refuse
		if (typeof proof !== "string") text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(proof);
		value = JSON.parse(text, function (_, item) {
			keys += !Array.isArray(this);
			return item;
		});
	} catch (error) {
		need(false, `not JSON in UTF-8: ${error.message}`);
	}
	need(new Blob([text]).size <= 2 ** 26, "longer than 64 MiB");
	// JSON.parse rounds numbers and drops equal keys: look at what is outside of strings.
	const bare = text.replace(/\\./g, "").replace(/"[^"]*"/g, "");
	need(!/[-.]|\d[eE]/.test(bare), "a number is not digits alone");
	need(bare.split(":").length === keys, "a key occurs twice"); // keys counts the whole, too
	return value;
}

// Shapes: what returns a value if it is as it must be

const shape = (what, test) => (v, name) => {
	need(test(v), `${name} is not ${what}`);
	return v;
};
const string = (what, test) => shape(what, (v) => typeof v === "string" && test(v));
const text = string("well-formed text", (v) => !/[\ud800-\udfff]/u.test(v));
const bytes = string("bytes in lower-case hex", (v) => v.length % 2 === 0 && !/[^0-9a-f]/.test(v));
const digits = (size) => string(`${size} lower-case hex digits`, (v) => v.length === size && !/[^0-9a-f]/.test(v));
const hash = digits(64), hash32 = digits(32);
const network = string("a network", (v) => // signet-0a03cf40 is signet
	/^(mainnet|testnet[34]|regtest|signet(-(?!0a03cf40)[0-9a-f]{8})?)$/.test(v));
const below = (power) => shape(`a whole number below 2^${power}`, (v) => Number.isInteger(v) && v < 2 ** power);
const whole = below(31), count = below(53);
const or = (other, item) => (v, name) => v === other ? v : item(v, name);
const list = (item) => (v, name) => {
	need(Array.isArray(v), `${name} is not a list`);
	return v.map((one, i) => item(one, `${name}[${i}]`));
};
const record = (items) => (v, name) => {
	const keys = Object.keys(items);
	need(Object(v) === v && !Array.isArray(v) && Object.keys(v).every((key) => keys.includes(key)),
		`${name} is not an object of ${keys}`);
	return Object.fromEntries(keys.map((key) => [key, items[key](v[key], `${name}.${key}`)]));
};

const OPS = record({
	app: text, first_block_id: whole, ops: list(bytes), index: or(null, whole),
	hops: list(record({ block_id: whole, ops_hash: hash, prior: (value) => value })),
	spv: or(undefined, record({
		network, txindex: whole, transaction: bytes, branch: list(hash), coinbase: bytes,
		coinbase_branch: list(hash), headers: list(digits(160)),
	})),
});
const ROW = record({
	table: text, key: list(text),
	state: record({ // hashed in the order of these keys
		app: text, block_hash: hash, block_id: whole, consensus_hash: hash32, genesis_hash: hash, state_hash: hash,
		tables: list(record({ columns: list(text), key: list(text), name: text, root: hash, rows: count })),
	}),
	rows: list(record({ index: count, values: list(or(null, text)), path: list(hash) })),
});

function agree(known, shown) {
	for (const name in known) {
		need(known[name] == null || JSON.stringify(known[name]) === JSON.stringify(shown[name]), `another ${name} is shown`);
	}
}

// Ops

function checkOps(proof, trusted, known) {
	const { app, first_block_id, hops, ops, index, spv } = OPS(proof, "proof"), isList = index === null;
	need(hops.length && (isList ? !spv : index < ops.length), "no hops, or a wrong index");
	const at = hops[0].block_id, { block_id, ops_hash } = hops.at(-1), { absent } = known;
	let expected = { [at]: hash32(trusted, "trusted") };
	for (const { block_id, ops_hash, prior } of hops) {
		const name = `block ${block_id}`, items = {};
		for (let gap = 1; block_id - gap >= first_block_id; gap += gap + 1) items[block_id - gap] = hash32;
		const before = record(items)(prior, `prior of ${name}`), hashes = Object.values(before);
		need(block_id >= first_block_id && new Set(hashes).size === hashes.length, `${name} is too low, or has a hash twice`);
		need(consensusHash([ops_hash, ...hashes]) === expected[block_id], `${name} has another hash`);
		expected = before;
	}
	const [root, isShortest] = merkle((ops.length ? ops : [""]).map(sha256d));
	need(root === ops_hash && isShortest && ops.every((op) => /^(..)?3a/.test(op)),
		"the ops are not the shortest list with their hash");
	const chain = spv ? checkSpv(spv, block_id) : null;
	agree(known, {
		network: known.network, ...chain, app, at, header: chain?.last_block_hash,
		absent: isList && absent && !ops.includes(bytes(absent, "absent")) ? absent : undefined,
	});
	return {
		kind: isList ? "ops" : "op", app, first_block_id, trusted_block_id: at, block_id,
		op: ops[index] ?? null, ops, spv: chain,
	};
}

// Proof of work

function checkSpv({ network, txindex, transaction: tx, branch, coinbase, coinbase_branch, headers }, height) {
	const chain = readHeaders(headers, height, network), [first, ...more] = chain;
	const [[spent, script], second] = readInputs(coinbase), size = sizeOf(height);
	const pushed = height < 17 ? hexOf(0x50 + height) : hexOf(size, 2) + flip(hexOf(height, 2 * size));
	need(readInputs(tx) && /^0{64}f{8}$/.test(spent) && !second && (txindex || tx === coinbase) &&
		(height < ({ mainnet: 227931, testnet3: 21111 }[network] || 1) || script.startsWith(pushed)), "the coinbase does not fit");
	need(branch.length < 16 && branch.length === coinbase_branch.length && txindex < 2 ** branch.length &&
		climb(tx, txindex, branch) === first.root && climb(coinbase, 0, coinbase_branch) === first.root,
	"a branch does not fit");
	return {
		network, block_hash: first.hash, txindex, txid: flip(sha256d(tx)),
		last_block_id: height + more.length, last_block_hash: chain.at(-1).hash, blocks_on_top: more.length,
		work_on_top: more.reduce((sum, { target }) => sum + 2n ** 256n / (target + 1n), 0n).toString(16),
	};
}

/** What inputs spend, and their scripts. 64 bytes could be a node of the tree. */
function readInputs(tx) {
	let at = 0;
	const take = (size) => tx.slice(at, at += 2 * size);
	const number = () => {
		const first = int(take(1)), size = 2 ** (first - 0xfc), value = size > 1 ? int(flip(take(size))) : first;
		return value < [0xfd, 2 ** 16, 2 ** 32][first - 0xfd] ? NaN : value; // fewer bytes would do
	};
	const inputs = [];
	take(4);
	for (let n = number(); n > 0 && at < tx.length; n--) inputs.push([take(36), take(number()), take(4)]);
	for (let n = number(); n > 0 && at < tx.length; n--) take(8) + take(number());
	take(4);
	need(inputs.length && at === tx.length && at !== 128, "a transaction is malformed");
	return inputs;
}

/** Where a branch leads; the repeated end of a row does not count. */
const climb = (tx, place, branch) => branch.reduce((node, sibling, level) => place >> level & 1
	? node !== sibling && sha256d(sibling + node) : sha256d(node + sibling), sha256d(tx));

/** 0, which no hash meets, if the sign is set. */
const targetOf = (bits) => BigInt(bits & 0x800000 ? 0 : bits & 0x7fffff) << BigInt(8 * ((bits >>> 24) - 3));

const sizeOf = (number) => (number.toString(2).length >> 3) + 1; // with a bit for the sign
const bitsOf = (target) => {
	const size = sizeOf(target);
	return size * 2 ** 24 + Number(target >> BigInt(8 * size - 24));
};

function readHeaders(headers, lowest, network) {
	const warps = network === "testnet4", eases = /^t/.test(network), retargets = !/^r|-/.test(network);
	const limit = { r: 2n ** 255n - 1n, s: 0x377aen << 216n }[network[0]] || 0xffffn << 208n;
	const adjusted = (target, seconds) => {
		const result = target * BigInt(Math.min(Math.max(seconds, 302400), 4838400)) / 1209600n;
		return targetOf(bitsOf(result < limit ? result : limit));
	};
	const chain = [];
	let usual; // the bits of headers without ease, once they are known
	need(headers.length, "no headers");
	for (const header of headers) {
		const field = (at, size) => flip(header.substr(2 * at, 2 * size)), hash = flip(sha256d(header));
		const time = int(field(68, 4)), bits = int(field(72, 4)), target = targetOf(bits), place = chain.length;
		const check = (condition, what) => need(condition, `header ${hash} has a wrong ${what}`);
		const starts = (lowest + place) % 2016 === 0, before = chain[place - 1], first = chain[place - 2016];
		check(target <= limit && BigInt("0x" + hash) <= target, "target or no work");
		if (before) {
			check(field(4, 32) === before.hash, "parent");
			check(!retargets || (!starts ? eases && time > before.time + 1200 ? bits === bitsOf(limit) : !usual || bits === usual
				: first ? bits === bitsOf(adjusted((warps ? first : before).target, before.time - first.time))
				: warps || adjusted(before.target, 0) <= target && target <= adjusted(before.target, Infinity)), "target");
			const times = chain.slice(-11).map((one) => one.time).sort((a, b) => a - b);
			check((place < 11 && lowest || time > times[times.length >> 1]) &&
				!(warps && starts && time < before.time - 600), "time");
		}
		if (!eases || starts || bits !== bitsOf(limit)) usual = bits;
		chain.push({ hash, time, target, root: header.slice(72, 136) });
	}
	return chain;
}

// Rows

/** One text that compares like the key: by bytes, where a prefix comes first. */
const keyOf = (texts) => texts.map(utf8).join();

function checkRow(proof, trusted, known) {
	const { state, table: name, key, rows } = ROW(proof, "proof");
	const { consensus_hash, state_hash, tables, ...block } = state;
	tables.forEach(({ columns, key, name }, i) => {
		need((!i || utf8(tables[i - 1].name) < utf8(name)) && key.every((column) => columns.includes(column)) &&
			[columns, key].every((names) => new Set(names).size === names.length), `table ${name} is out of order`);
	});
	need(sha256("02" + utf8(JSON.stringify(state))) === hash(trusted, "trusted"), "the state has another hash");
	const table = tables.find((one) => one.name === name);
	need(table && key.length === table.key.length, "no such table or key");
	const { columns, root, rows: size } = table, sought = keyOf(key);
	const [[low, one] = [], [high, two] = []] = rows.map(({ index, values, path }) => {
		const leaf = sha256("00" + utf8(JSON.stringify([name, ...values])));
		const texts = table.key.map((column) => values[columns.indexOf(column)]);
		need(values.length === columns.length && !texts.includes(null) && rootOf(leaf, index, size, path) === root,
			"a row is not in the table");
		return [keyOf(texts), index];
	});
	const exists = rows.length === 1 && low === sought;
	need(exists || [
		size === 0, one === (low > sought ? 0 : size - 1), two === one + 1 && low < sought && sought < high,
	][rows.length], "the rows are not the neighbors of the key");
	agree(known, { app: block.app, at: block.block_id, table: name, key });
	const named = (names, texts) => Object.fromEntries(names.map((column, i) => [column, texts[i]]));
	return {
		kind: "row", ...block, table: name, key: named(table.key, key),
		row: exists ? named(columns, rows[0].values) : null,
	};
}

function rootOf(node, index, size, path) {
	let place = BigInt(index), last = BigInt(size) - 1n;
	if (place > last) return null;
	for (const sibling of path) {
		if (!last) return null;
		for (; place === last && !(place & 1n); last >>= 1n) place >>= 1n;
		node = sha256("01" + (place & 1n ? sibling + node : node + sibling));
		place >>= 1n;
		last >>= 1n;
	}
	return !last && node;
}

function checkProof(proof, trusted, known = {}) {
	const { format, ...parts } = Object(read(proof));
	if (format === "virtualchain-proof-1") return checkOps(parts, trusted, known);
	need(format === "virtualchain-row-proof-1", "not a known proof");
	return checkRow(parts, trusted, known);
}

if (typeof module === "object") module.exports = checkProof;
else globalThis.checkProof = checkProof;
})();
