/* What a module in C needs to be the rules of an app (docs/wasm.md). */

#ifndef VIRTUALCHAIN_H
#define VIRTUALCHAIN_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef long long i64;

#define IMPORT(name) __attribute__((import_module("virtualchain"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

IMPORT("next") u32 vc_next(void *room, u32 size);
IMPORT("get") int vc_get(const char *table, u32 table_size, const void *key, u32 key_size, void *room, u32 size);
IMPORT("put") void vc_put(const char *table, u32 table_size, const void *row, u32 size);
IMPORT("delete") void vc_delete(const char *table, u32 table_size, const void *key, u32 size);
IMPORT("accept") void vc_accept(const void *values, u32 size);
IMPORT("refuse") void vc_refuse(const char *reason, u32 size);
IMPORT("want") void vc_want(const char *table, u32 table_size, const void *key, u32 size);
IMPORT("is_text") u32 vc_is_text(const void *text, u32 size);

#define NAMED(text) text, sizeof(text) - 1

/* Some bytes of the input. */
struct part { const u8 *at; u32 size; };

struct input {
    u8 opcode;
    struct part txid, payload;
    struct part sender;     /* the address of the first input, if it signed the whole transaction */
    struct part recipient;  /* the address of the first output that only an owner can spend */
    i64 fee;
};

static u32 read_u32(const u8 *at) { return at[0] | at[1] << 8 | at[2] << 16 | (u32)at[3] << 24; }

static i64 read_i64(const u8 *at) { return (i64)((unsigned long long)read_u32(at + 4) << 32 | read_u32(at)); }

static void copy(u8 *to, const u8 *from, u32 size) { __builtin_memcpy(to, from, size); }

/* Read the record that `vc_next` has written. */
static struct input read_input(const u8 *at) {
    struct input in = { .txid = { at, 32 }, .opcode = at[32], .fee = read_i64(at + 40) };
    u8 senders = at[33], outputs = at[34];
    in.payload = (struct part){ at + 48, read_u32(at + 36) };
    at = in.payload.at + in.payload.size;
    for (u32 n = 0; n < senders; n++) {
        if (n == 0) in.sender = (struct part){ at + 1, at[0] };
        at += 1 + at[0];
    }
    for (u32 n = 0; n < outputs; n++) {
        if (!in.recipient.size) in.recipient = (struct part){ at + 9, at[8] };
        at += 9 + at[8];
    }
    return in;
}

/* Values for the engine, one after the other. */
struct values { u32 size; u8 bytes[4096]; };

static void add_integer(struct values *to, i64 value) {
    to->bytes[to->size] = 3;
    for (int n = 0; n < 8; n++) to->bytes[to->size + 1 + n] = (u8)((unsigned long long)value >> 8 * n);
    to->size += 9;
}

static void add_text(struct values *to, struct part text) {
    to->bytes[to->size] = 4;
    for (int n = 0; n < 4; n++) to->bytes[to->size + 1 + n] = (u8)(text.size >> 8 * n);
    copy(to->bytes + to->size + 5, text.at, text.size);
    to->size += 5 + text.size;
}

/* The integer that a row ends with. */
static i64 last_integer(const u8 *row, u32 size) { return read_i64(row + size - 8); }

#endif
