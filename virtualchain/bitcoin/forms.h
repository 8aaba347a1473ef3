/* Transactions, scripts and what spends them, in the forms that nearly all have. Whatever has another form, and
 * whatever is wrong, is not taken: each function returns whether it is sure. The rules are those of transaction.py,
 * script.py, addresses.py and spending.py. Include it after sha.h and curve.h.
 */

#ifndef FORMS_H
#define FORMS_H

#define LARGEST_KEPT 5000 /* as in spending.py */
#define MOST_KEPT 1000000
#define MOST_ITEMS 32 /* in an input script or a witness */
#define MOST_HRP 40
#define MOST_ADDRESS 128

typedef struct {
    const uint8_t *at, *end;
} Cursor;

typedef struct {
    uint8_t p2pkh, p2sh;
    char hrp[MOST_HRP + 1]; /* empty: witness programs have no address */
    size_t hrp_size;
    uint32_t checksum; /* of an address up to its separator */
    int has_witnesses;
    uint64_t largest;
} Network;

typedef struct {
    Cursor raw;
    uint64_t inputs, outputs;
    Cursor spendings, paid, witnesses; /* where they are; the first and the last advance with `next_spending` */
    int has_witness;
} Transaction;

typedef struct {
    const uint8_t *items[MOST_ITEMS];
    size_t sizes[MOST_ITEMS];
    int count;
} Stack;

typedef struct {
    const uint8_t *txid;
    uint32_t vout;
    Cursor script_sig;
    Stack witness;
} Spending;

typedef struct {
    uint64_t value;
    uint8_t script[LARGEST_KEPT];
    size_t size;
} Spent;

enum { PUBKEYHASH, SCRIPTHASH, KEYHASH_V0, SCRIPTHASH_V0, TAPROOT, ANCHOR, PUBKEY, MULTISIG, NULLDATA };

static const char *const NAMES[] = {
    "pubkeyhash", "scripthash", "witness_v0_keyhash", "witness_v0_scripthash", "witness_v1_taproot",
    "anchor",     "pubkey",     "multisig",           "nulldata",
};

/* Reading bytes. */

static int take(Cursor *from, uint64_t size, const uint8_t **data)
{
    if (size > (uint64_t)(from->end - from->at))
        return 0;
    *data = from->at;
    from->at += size;
    return 1;
}

static int take_count(Cursor *from, uint64_t *count)
{
    const uint8_t *data;
    if (!take(from, 1, &data))
        return 0;
    *count = data[0];
    if (*count < 0xFD)
        return 1;
    size_t size = *count == 0xFD ? 2 : 4;
    if (*count == 0xFF || !take(from, size, &data))
        return 0;
    *count = 0;
    memcpy(count, data, size);
    return *count >= (size == 2 ? 0xFD : 0x10000);
}

static int take_script(Cursor *from, Cursor *script)
{
    uint64_t size;
    if (!take_count(from, &size) || !take(from, size, &script->at))
        return 0;
    script->end = script->at + size;
    return 1;
}

/* Find the parts of a transaction, which must be all that there is. */
static int read_transaction(Cursor raw, Transaction *result)
{
    Cursor at = raw, script;
    const uint8_t *data;
    int has_items = 0;
    uint64_t items;
    result->raw = raw;
    if (!take(&at, 4, &data) || at.end - at.at < 2)
        return 0;
    result->has_witness = at.at[0] == 0;
    if (result->has_witness && (!take(&at, 2, &data) || data[1] != 1))
        return 0;
    if (!take_count(&at, &result->inputs) || !result->inputs)
        return 0;
    result->spendings = at;
    for (uint64_t i = 0; i < result->inputs; i++) {
        if (!take(&at, 36, &data) || !take_script(&at, &script))
            return 0;
        if (result->inputs == 1) { /* a coinbase */
            int is_empty = 1;
            for (int j = 0; j < 32; j++)
                is_empty = is_empty && !data[j];
            if (is_empty)
                return 0;
        }
        if (!take(&at, 4, &data))
            return 0;
    }
    result->spendings.end = at.at;
    if (!take_count(&at, &result->outputs))
        return 0;
    result->paid = at;
    for (uint64_t i = 0; i < result->outputs; i++)
        if (!take(&at, 8, &data) || !take_script(&at, &script))
            return 0;
    result->paid.end = at.at;
    result->witnesses = at;
    for (uint64_t i = 0; result->has_witness && i < result->inputs; i++) {
        if (!take_count(&at, &items))
            return 0;
        has_items = has_items || items;
        for (; items > 0; items--)
            if (!take_script(&at, &script))
                return 0;
    }
    result->witnesses.end = at.at;
    return has_items == result->has_witness && at.end - at.at == 4;
}

static void hash_transaction(const Transaction *transaction, uint8_t id[32])
{
    const Cursor *raw = &transaction->raw;
    Sha256 hash;
    begin(&hash);
    if (transaction->has_witness) {
        add(&hash, raw->at, 4);
        add(&hash, raw->at + 6, transaction->paid.end - raw->at - 6);
        add(&hash, raw->end - 4, 4);
    } else
        add(&hash, raw->at, raw->end - raw->at);
    end_twice(&hash, id);
}

static int next_spending(Transaction *transaction, Spending *spending)
{
    const uint8_t *data;
    if (!take(&transaction->spendings, 36, &spending->txid) ||
        !take_script(&transaction->spendings, &spending->script_sig) || !take(&transaction->spendings, 4, &data))
        return 0;
    memcpy(&spending->vout, spending->txid + 32, 4);
    uint64_t count = 0;
    if (transaction->has_witness && (!take_count(&transaction->witnesses, &count) || count > MOST_ITEMS))
        return 0;
    spending->witness.count = (int)count;
    for (uint64_t i = 0; i < count; i++) {
        Cursor item;
        if (!take_script(&transaction->witnesses, &item))
            return 0;
        spending->witness.items[i] = item.at;
        spending->witness.sizes[i] = item.end - item.at;
    }
    return 1;
}

/* Reading text: each of these takes what is expected, or returns 0. */

static int take_text(Cursor *text, const char *expected, size_t size)
{
    const uint8_t *data;
    return take(text, size, &data) && !memcmp(data, expected, size);
}

#define WORD(text, expected) take_text(text, expected, sizeof expected - 1)

static int take_hex(Cursor *text, const uint8_t *expected, size_t size)
{
    const uint8_t *digits;
    if (size > SIZE_MAX / 2 || !take(text, 2 * size, &digits))
        return 0;
    for (size_t i = 0; i < size; i++)
        if (digits[2 * i] != "0123456789abcdef"[expected[i] >> 4] ||
            digits[2 * i + 1] != "0123456789abcdef"[expected[i] & 15])
            return 0;
    return 1;
}

static int take_reversed(Cursor *text, const uint8_t *expected, size_t size)
{
    for (size_t i = size; i > 0; i--)
        if (!take_hex(text, expected + i - 1, 1))
            return 0;
    return 1;
}

/* Read a number as JSON has it, of up to 18 digits. */
static int take_number(Cursor *text, uint64_t *value)
{
    const uint8_t *start = text->at;
    *value = 0;
    for (; text->at < text->end && text->at - start < 19 && *text->at >= '0' && *text->at <= '9'; text->at++)
        *value = 10 * *value + (*text->at - '0');
    size_t size = text->at - start;
    return size && size < 19 && (size == 1 || *start != '0');
}

static int take_this_number(Cursor *text, uint64_t expected)
{
    uint64_t value;
    return take_number(text, &value) && value == expected;
}

/* Skip text up to a quote or bracket that stands alone, and return what was skipped. */
static int skip_to(Cursor *text, char until, Cursor *skipped)
{
    skipped->at = text->at;
    skipped->end = text->at < text->end ? memchr(text->at, until, text->end - text->at) : NULL;
    if (skipped->end == NULL)
        return 0;
    text->at = skipped->end;
    return 1;
}

/* Addresses. */

static uint32_t bech32_step(uint32_t checksum, uint8_t value)
{
    static const uint32_t generator[5] = {0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3};
    uint32_t leaving = checksum >> 25;
    checksum = (checksum & 0x1FFFFFF) << 5 ^ value;
#pragma GCC unroll 5
    for (int bit = 0; bit < 5; bit++)
        checksum ^= generator[bit] & -(leaving >> bit & 1);
    return checksum;
}

static void set_network(Network *network, uint8_t p2pkh, uint8_t p2sh, const char *hrp, size_t hrp_size)
{
    network->p2pkh = p2pkh;
    network->p2sh = p2sh;
    memcpy(network->hrp, hrp, hrp_size);
    network->hrp_size = hrp_size;
    uint32_t checksum = 1;
    for (size_t i = 0; i < hrp_size; i++)
        checksum = bech32_step(checksum, hrp[i] >> 5);
    checksum = bech32_step(checksum, 0);
    for (size_t i = 0; i < hrp_size; i++)
        checksum = bech32_step(checksum, hrp[i] & 31);
    network->checksum = checksum;
}

static size_t write_bech32(const Network *network, int version, const uint8_t *program, size_t size, char *address)
{
    static const char characters[] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    uint32_t checksum = bech32_step(network->checksum, version), held = 0;
    char *at = address + network->hrp_size;
    memcpy(address, network->hrp, network->hrp_size);
    *at++ = '1';
    *at++ = characters[version];
    int bits = 0;
    for (size_t i = 0; i < size; i++) {
        held = (held & 0xFFF) << 8 | program[i];
        for (bits += 8; bits >= 5; checksum = bech32_step(checksum, held >> bits & 31)) {
            bits -= 5;
            *at++ = characters[held >> bits & 31];
        }
    }
    if (bits) {
        *at++ = characters[held << (5 - bits) & 31];
        checksum = bech32_step(checksum, held << (5 - bits) & 31);
    }
    for (int i = 0; i < 6; i++)
        checksum = bech32_step(checksum, 0);
    checksum ^= version ? 0x2BC830A3 : 1;
    for (int i = 5; i >= 0; i--)
        *at++ = characters[checksum >> 5 * i & 31];
    return at - address;
}

static size_t write_base58(uint8_t version, const uint8_t hash[20], char *address)
{
    static const char characters[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    uint8_t data[28] = {0}, digest[32]; /* the 25 bytes are a number of seven words */
    data[3] = version;
    memcpy(data + 4, hash, 20);
    Sha256 sha256;
    begin(&sha256);
    add(&sha256, data + 3, 21);
    end_twice(&sha256, digest);
    memcpy(data + 24, digest, 4);
    uint32_t words[7];
    for (int i = 0; i < 7; i++) {
        memcpy(words + i, data + 4 * i, 4);
        words[i] = __builtin_bswap32(words[i]);
    }
    char digits[40];
    int count = 0;
    while (count < 35) { /* 58^35 is above 2^200 */
        uint64_t rest = 0;
        for (int i = 0; i < 7; i++) {
            uint64_t value = rest << 32 | words[i];
            words[i] = (uint32_t)(value / 656356768);
            rest = value % 656356768;
        }
        for (int i = 0; i < 5; i++, rest /= 58) /* 58^5 */
            digits[count++] = characters[rest % 58];
    }
    while (count && digits[count - 1] == '1')
        count--;
    size_t size = 0;
    for (int i = 3; i < 28 && !data[i]; i++)
        address[size++] = '1';
    while (count)
        address[size++] = digits[--count];
    return size;
}

/* Scripts. */

static int is_key(const uint8_t *data, size_t size)
{
    return (size == 33 && (data[0] == 2 || data[0] == 3)) ||
           (size == 65 && (data[0] == 4 || data[0] == 6 || data[0] == 7));
}

static int is_p2pkh(const uint8_t *script, size_t size)
{
    return size == 25 && !memcmp(script, "\x76\xa9\x14", 3) && script[23] == 0x88 && script[24] == 0xac;
}

static int is_pubkey(const uint8_t *script, size_t size)
{
    return size >= 35 && script[0] == size - 2 && script[size - 1] == 0xac && is_key(script + 1, size - 2);
}

/* List the keys of a multisig script of one to sixteen, each pushed by its length; the number that must sign. */
static int read_multisig(const uint8_t *script, size_t size, Stack *keys)
{
    keys->count = 0;
    if (size < 3 || script[size - 1] != 0xae || script[0] < 0x51 || script[0] > 0x60)
        return 0;
    size_t at = 1;
    while (at + 2 < size && keys->count < 16) {
        size_t length = script[at];
        if (at + 1 + length > size - 2 || !is_key(script + at + 1, length))
            return 0;
        keys->items[keys->count] = script + at + 1;
        keys->sizes[keys->count++] = length;
        at += 1 + length;
    }
    int required = script[0] - 0x50;
    return at + 2 == size && keys->count == script[at] - 0x50 && required <= keys->count ? required : 0;
}

/* List what a script pushes by a length of up to two bytes, or as empty; return whether it does nothing else. */
static int read_pushes(Cursor script, Stack *stack)
{
    stack->count = 0;
    while (script.at < script.end) {
        const uint8_t *data;
        size_t size = *script.at++;
        if (size > 0x4d || stack->count == MOST_ITEMS)
            return 0;
        if (size >= 0x4c) {
            size_t width = size - 0x4b;
            if (!take(&script, width, &data))
                return 0;
            size = width == 1 ? data[0] : data[0] | (size_t)data[1] << 8;
        }
        if (!take(&script, size, &data))
            return 0;
        stack->items[stack->count] = data;
        stack->sizes[stack->count++] = size;
    }
    return 1;
}

/* Check whether all of a script are pushes, those of numbers included. */
static int has_only_pushes(Cursor script)
{
    while (script.at < script.end) {
        const uint8_t *data;
        size_t opcode = *script.at++, width = opcode >= 0x4c && opcode <= 0x4e ? (size_t)1 << (opcode - 0x4c) : 0;
        uint64_t size = opcode < 0x4c ? opcode : 0;
        if (opcode > 0x60 || !take(&script, width, &data))
            return 0;
        if (width)
            memcpy(&size, data, width);
        if (!take(&script, size, &data))
            return 0;
    }
    return 1;
}

/* Find the type of a script, and write its address if it has one. */
static int classify(const uint8_t *script, size_t size, const Network *network, int *type, char *address, size_t *length)
{
    Stack keys;
    int is_program = size >= 4 && size <= 42 && script[1] + (size_t)2 == size &&
                     (script[0] == 0 || (script[0] >= 0x51 && script[0] <= 0x60));
    *length = 0;
    if (is_program) {
        if (!network->has_witnesses)
            return 0;
        if (script[0] == 0 && (size == 22 || size == 34))
            *type = size == 22 ? KEYHASH_V0 : SCRIPTHASH_V0;
        else if (script[0] == 0x51 && size == 34)
            *type = TAPROOT;
        else if (size == 4 && !memcmp(script, "\x51\x02\x4e\x73", 4))
            *type = ANCHOR;
        else
            return 0;
        if (network->hrp_size)
            *length = write_bech32(network, script[0] ? 1 : 0, script + 2, size - 2, address);
        return 1;
    }
    if (size == 23 && script[0] == 0xa9 && script[1] == 0x14 && script[22] == 0x87) {
        *type = SCRIPTHASH;
        *length = write_base58(network->p2sh, script + 2, address);
    } else if (is_p2pkh(script, size)) {
        *type = PUBKEYHASH;
        *length = write_base58(network->p2pkh, script + 3, address);
    } else if (size && script[0] == 0x6a) {
        Cursor rest = {script + 1, script + size};
        *type = NULLDATA;
        return has_only_pushes(rest);
    } else if (is_pubkey(script, size))
        *type = PUBKEY;
    else if (read_multisig(script, size, &keys))
        *type = MULTISIG;
    else
        return 0;
    return 1;
}

static int check_outputs(const Transaction *transaction, Cursor *text, const Network *network, uint64_t *pays)
{
    Cursor at = transaction->paid, script;
    if (!WORD(text, "["))
        return 0;
    for (uint64_t n = 0; n < transaction->outputs; n++) {
        const uint8_t *data;
        uint64_t value;
        int type;
        char address[MOST_ADDRESS];
        size_t length;
        if (!take(&at, 8, &data) || !take_script(&at, &script))
            return 0;
        memcpy(&value, data, 8);
        if (value > network->largest || (*pays += value) > network->largest)
            return 0;
        if (!classify(script.at, script.end - script.at, network, &type, address, &length))
            return 0;
        if ((n && !WORD(text, ", ")) || !WORD(text, "{\"n\": ") || !take_this_number(text, n) ||
            !WORD(text, ", \"type\": \"") || !take_text(text, NAMES[type], strlen(NAMES[type])) ||
            !WORD(text, "\", \"value\": ") || !take_this_number(text, value) || !WORD(text, ", \"addresses\": [") ||
            (length && (!WORD(text, "\"") || !take_text(text, address, length) || !WORD(text, "\""))) ||
            !WORD(text, "], \"script_pubkey\": \"") || !take_hex(text, script.at, script.end - script.at) ||
            !WORD(text, "\"}"))
            return 0;
    }
    return WORD(text, "]") && text->at == text->end;
}

#endif
