/* What spends an output: whether it fits, the keys that it reveals, and what its signatures cover, for the forms that
 * nearly all have. Include it after forms.h.
 */

#ifndef SPENDS_H
#define SPENDS_H

typedef struct {
    Stack keys;
    uint8_t signatures[MOST_ITEMS]; /* their hash types, and 0 for DEFAULT */
    int count;
} Shown;

static int has_hash160(const uint8_t *data, size_t size, const uint8_t expected[20])
{
    uint8_t digest[32], hash[20];
    Sha256 sha256;
    begin(&sha256);
    add(&sha256, data, size);
    end(&sha256, digest);
    ripemd160(digest, hash);
    return !memcmp(hash, expected, 20);
}

static int has_sha256(const uint8_t *data, size_t size, const uint8_t expected[32])
{
    uint8_t digest[32];
    Sha256 sha256;
    begin(&sha256);
    add(&sha256, data, size);
    end(&sha256, digest);
    return !memcmp(digest, expected, 32);
}

static void show_key(Shown *shown, const uint8_t *key, size_t size)
{
    shown->keys.items[0] = key;
    shown->keys.sizes[0] = size;
    shown->keys.count = 1;
}

/* Take the last byte of a signature as its hash type; an empty one is for other code. */
static int show_signature(Shown *shown, const uint8_t *signature, size_t size)
{
    if (!size || !signature[size - 1]) /* a type of zero counts as ALL, which DEFAULT is not */
        return 0;
    shown->signatures[shown->count++] = signature[size - 1];
    return 1;
}

static int is_der(const uint8_t *item, size_t size)
{
    if (size < 9 || size > 73 || item[0] != 0x30 || item[1] != size - 3 || item[2] != 2)
        return 0;
    size_t length = item[3];
    return 5 + length < size && item[4 + length] == 2 && length + item[5 + length] + 7 == size;
}

/* Show what the last item of a stack, a script that was found to be the right one, takes of the others. */
static int show_script(const uint8_t *script, size_t size, const Stack *stack, Shown *shown)
{
    int count = stack->count, required = read_multisig(script, size, &shown->keys);
    if (required) {
        if (count < required)
            return 0;
        for (int i = count - required; i < count; i++)
            if (!show_signature(shown, stack->items[i], stack->sizes[i]))
                return 0;
        return 1;
    }
    if (!size || script[size - 1] == 0xae || is_pubkey(script, size) || is_p2pkh(script, size))
        return 0;
    shown->keys.count = 0;
    for (int i = 0; i < count; i++)
        if (is_der(stack->items[i], stack->sizes[i]) &&
            !show_signature(shown, stack->items[i], stack->sizes[i]))
            return 0;
    return 1;
}

static int show_keyhash(const uint8_t hash[20], const Stack *witness, Shown *shown)
{
    if (witness->count != 2 || !has_hash160(witness->items[1], witness->sizes[1], hash))
        return 0;
    show_key(shown, witness->items[1], witness->sizes[1]);
    return show_signature(shown, witness->items[0], witness->sizes[0]);
}

static int show_scripthash(const uint8_t hash[32], const Stack *witness, Shown *shown)
{
    Stack stack = *witness;
    if (stack.count < 1 || !has_sha256(stack.items[stack.count - 1], stack.sizes[stack.count - 1], hash))
        return 0;
    stack.count--;
    return show_script(stack.items[stack.count], stack.sizes[stack.count], &stack, shown);
}

static int is_taproot_type(uint8_t type) { return (type & 0x7F) >= 1 && (type & 0x7F) <= 3; }

static int show_taproot(const uint8_t output_key[32], const Stack *witness, Shown *shown)
{
    int count = witness->count, signatures = count == 1 ? 1 : count - 2;
    if (count < 1 || (count > 1 && witness->sizes[count - 1] && witness->items[count - 1][0] == 0x50))
        return 0; /* an annex */
    for (int i = 0; i < signatures; i++) {
        size_t size = witness->sizes[i];
        if (size == 64)
            shown->signatures[shown->count++] = 0;
        else if (size == 65 && is_taproot_type(witness->items[i][64]))
            shown->signatures[shown->count++] = witness->items[i][64];
        else if (count == 1)
            return 0;
    }
    show_key(shown, output_key, 32);
    if (count == 1)
        return 1;
    const uint8_t *leaf = witness->items[count - 2], *control = witness->items[count - 1];
    size_t leaf_size = witness->sizes[count - 2], control_size = witness->sizes[count - 1];
    if (control_size < 33 || control_size > 33 + 128 * 32 || (control_size - 33) % 32)
        return 0;
    uint8_t node[32], head[6] = {control[0] & 0xFE, leaf_size < 0xFD ? leaf_size : leaf_size < 0x10000 ? 0xFD : 0xFE};
    Sha256 hash;
    memcpy(head + 2, &leaf_size, 4);
    tag(&hash, "TapLeaf");
    add(&hash, head, leaf_size < 0xFD ? 2 : leaf_size < 0x10000 ? 4 : 6);
    add(&hash, leaf, leaf_size);
    end(&hash, node);
    for (size_t at = 33; at < control_size; at += 32) {
        int is_first = memcmp(node, control + at, 32) < 0;
        tag(&hash, "TapBranch");
        add(&hash, is_first ? node : control + at, 32);
        add(&hash, is_first ? control + at : node, 32);
        end(&hash, node);
    }
    return is_tweaked(control + 1, node, output_key, control[0] & 1);
}

/* Show what the input of an output of some type reveals; return whether it can spend it, and all of that is sure. */
static int show(int type, const uint8_t *script, size_t size, const Spending *spending, Shown *shown)
{
    const Stack *witness = &spending->witness;
    Stack stack;
    int has_script_sig = spending->script_sig.at < spending->script_sig.end, required;
    shown->count = 0;
    switch (type) {
    case KEYHASH_V0: return !has_script_sig && show_keyhash(script + 2, witness, shown);
    case SCRIPTHASH_V0: return !has_script_sig && show_scripthash(script + 2, witness, shown);
    case TAPROOT: return !has_script_sig && show_taproot(script + 2, witness, shown);
    case ANCHOR:
    case NULLDATA: return 0;
    default: break;
    }
    if (!read_pushes(spending->script_sig, &stack))
        return 0;
    int count = stack.count;
    switch (type) {
    case PUBKEYHASH:
        if (count != 2 || !has_hash160(stack.items[1], stack.sizes[1], script + 3))
            return 0;
        show_key(shown, stack.items[1], stack.sizes[1]);
        return show_signature(shown, stack.items[0], stack.sizes[0]);
    case PUBKEY:
        show_key(shown, script + 1, size - 2);
        return count == 1 && show_signature(shown, stack.items[0], stack.sizes[0]);
    case MULTISIG:
        required = read_multisig(script, size, &shown->keys);
        if (count < required)
            return 0;
        for (int i = count - required; i < count; i++)
            if (!show_signature(shown, stack.items[i], stack.sizes[i]))
                return 0;
        return 1;
    default: /* SCRIPTHASH */
        if (!count || !has_hash160(stack.items[count - 1], stack.sizes[count - 1], script + 2))
            return 0;
    }
    const uint8_t *redeem = stack.items[count - 1];
    size_t redeem_size = stack.sizes[count - 1];
    if (redeem_size >= 4 && redeem_size <= 42 && redeem[1] + (size_t)2 == redeem_size &&
        (redeem[0] == 0 || (redeem[0] >= 0x51 && redeem[0] <= 0x60))) { /* a witness program */
        if (count != 1 || redeem[0] || (redeem_size != 22 && redeem_size != 34))
            return 0;
        return redeem_size == 22 ? show_keyhash(redeem + 2, witness, shown)
                                 : show_scripthash(redeem + 2, witness, shown);
    }
    stack.count--;
    return show_script(redeem, redeem_size, &stack, shown);
}

static int take_hash_type(Cursor *text, uint8_t type)
{
    int low = type & 0x1F;
    if (!type)
        return WORD(text, "\"DEFAULT\"");
    if (!(low == 2 ? WORD(text, "\"NONE") : low == 3 ? WORD(text, "\"SINGLE") : WORD(text, "\"ALL")))
        return 0;
    return (!(type & 0x80) || WORD(text, "|ANYONECANPAY")) && WORD(text, "\"");
}

/* Read what a sender spends, as its value and its script say, and check everything that follows from it. */
static int check_sender(Cursor *text, const Spending *spending, Spent *spent, const Network *network)
{
    Cursor type, signatures, addresses, keys, script;
    if (!WORD(text, "{\"txid\": \"") || !take_reversed(text, spending->txid, 32) || !WORD(text, "\", \"type\": \"") ||
        !skip_to(text, '"', &type) || !WORD(text, "\", \"vout\": ") || !take_this_number(text, spending->vout) ||
        !WORD(text, ", \"value\": ") || !take_number(text, &spent->value) || spent->value > network->largest ||
        !WORD(text, ", \"sighash\": [") || !skip_to(text, ']', &signatures) || !WORD(text, "], \"addresses\": [") ||
        !skip_to(text, ']', &addresses) || !WORD(text, "], \"public_keys\": [") || !skip_to(text, ']', &keys) ||
        !WORD(text, "], \"script_pubkey\": \"") || !skip_to(text, '"', &script) || !WORD(text, "\"}"))
        return 0;
    size_t digits = script.end - script.at;
    if (digits % 2 || digits / 2 > LARGEST_KEPT)
        return 0;
    spent->size = digits / 2;
    for (size_t i = 0; i < digits; i++) {
        uint8_t digit = script.at[i];
        int value = digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
        if (value < 0)
            return 0;
        spent->script[i / 2] = i % 2 ? spent->script[i / 2] | value : value << 4;
    }
    int form;
    char address[MOST_ADDRESS];
    size_t length;
    Shown shown;
    if (!classify(spent->script, spent->size, network, &form, address, &length) ||
        !show(form, spent->script, spent->size, spending, &shown))
        return 0;
    if (!take_text(&type, NAMES[form], strlen(NAMES[form])) || type.at != type.end)
        return 0;
    for (int i = 0; i < shown.count; i++)
        if ((i && !WORD(&signatures, ", ")) || !take_hash_type(&signatures, shown.signatures[i]))
            return 0;
    if (length &&
        (!WORD(&addresses, "\"") || !take_text(&addresses, address, length) || !WORD(&addresses, "\"")))
        return 0;
    for (int i = 0; i < shown.keys.count; i++)
        if ((i && !WORD(&keys, ", ")) || !WORD(&keys, "\"") ||
            !take_hex(&keys, shown.keys.items[i], shown.keys.sizes[i]) || !WORD(&keys, "\""))
            return 0;
    return signatures.at == signatures.end && addresses.at == addresses.end && keys.at == keys.end;
}

#endif
