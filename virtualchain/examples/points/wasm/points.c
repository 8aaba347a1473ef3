/* The example points as a module: the same rules as the .sql files in the folder above. */

#include "virtualchain.h"

static u8 room[16384];
static u8 row[8192];

/* A name and an amount: all that the payloads of both opcodes have. */
struct points { struct part name; i64 amount; };

static const char *read_points(struct part payload, struct points *points) {
    if (payload.size < 1 || payload.at[0] > 20 || payload.size != 1u + payload.at[0] + 4) return "malformed";
    points->name = (struct part){ payload.at + 1, payload.at[0] };
    const u8 *at = points->name.at + points->name.size;
    points->amount = (i64)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
    return vc_is_text(points->name.at, points->name.size) ? 0 : "malformed";
}

static struct values key_of(struct part name, struct part owner) {
    struct values key = { 0 };
    add_text(&key, name);
    if (owner.at) add_text(&key, owner);
    return key;
}

static i64 balance(struct part name, struct part owner) {
    struct values key = key_of(name, owner);
    int size = vc_get(NAMED("balances"), key.bytes, key.size, row, sizeof row);
    return size < 0 ? -1 : last_integer(row, (u32)size);
}

static void set_balance(struct part name, struct part owner, i64 amount) {
    struct values values = key_of(name, owner);
    add_integer(&values, amount);
    vc_put(NAMED("balances"), values.bytes, values.size);
}

static const char *issue(struct input in, struct points points, i64 block_id, struct values *op) {
    struct values key = key_of(points.name, (struct part){ 0 });
    if (!points.name.size) return "a name has at least one byte";
    if (vc_get(NAMED("points"), key.bytes, key.size, row, sizeof row) >= 0) return "there are points of that name";
    struct values values = key_of(points.name, in.sender);
    add_integer(&values, points.amount);
    add_integer(&values, block_id);
    vc_put(NAMED("points"), values.bytes, values.size);
    set_balance(points.name, in.sender, points.amount);
    add_text(op, in.sender);
    return 0;
}

static const char *transfer(struct input in, struct points points, struct values *op) {
    if (!in.recipient.size) return "no output pays a recipient";
    i64 has = balance(points.name, in.sender);
    if (has < points.amount) return "the sender has too few points";
    set_balance(points.name, in.sender, has - points.amount);
    i64 had = balance(points.name, in.recipient);
    set_balance(points.name, in.recipient, (had < 0 ? 0 : had) + points.amount);
    add_text(op, in.sender);
    add_text(op, in.recipient);
    return 0;
}

static u32 length(const char *text) {
    u32 size = 0;
    while (text[size]) size++;
    return size;
}

EXPORT("block") void block(int block_id, i64 block_time, int count) {
    while (vc_next(room, sizeof room)) {
        struct input in = read_input(room);
        struct points points;
        struct values op = { 0 };
        const char *refused = in.sender.size ? read_points(in.payload, &points) : "the sender signed not everything";
        if (!refused) refused = in.opcode == 'i' ? issue(in, points, block_id, &op) : transfer(in, points, &op);
        if (refused) {
            vc_refuse(refused, length(refused));
            continue;
        }
        add_text(&op, points.name);
        add_integer(&op, points.amount);
        vc_accept(op.bytes, op.size);
    }
}

/* Optional, and only faster: the rows that the block will need are read together. */
EXPORT("keys") void keys(int block_id, i64 block_time, int count) {
    while (vc_next(room, sizeof room)) {
        struct input in = read_input(room);
        struct points points;
        if (!in.sender.size || read_points(in.payload, &points)) continue;
        struct values key = key_of(points.name, in.sender);
        vc_want(NAMED("balances"), key.bytes, key.size);
        if (in.opcode == 'i') {
            key = key_of(points.name, (struct part){ 0 });
            vc_want(NAMED("points"), key.bytes, key.size);
        } else if (in.recipient.size) {
            key = key_of(points.name, in.recipient);
            vc_want(NAMED("balances"), key.bytes, key.size);
        }
    }
}
