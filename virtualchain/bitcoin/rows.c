/* Exported inputs on their way to the database: checked, and written as COPY takes them, many at once and without the
 * interpreter's lock. Compiled by .ci/compile.py.
 *
 * It is sure only of rows in which everything has a usual form, and stops at the first other one, right or wrong:
 * that is for `read_exported_input` in virtualchain/audit/checking.py, which this must never contradict. The rules
 * are those of script.py and spending.py.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

#include "sha.h"

#include "curve.h"

#include "forms.h"

#include "spends.h"

/* The columns, as Arrow has them: `ends` are where items start, and where the last one ends. */

enum { INTEGERS_32, INTEGERS_64, BYTES, LIST_OF_BYTES, LIST_OF_INTEGERS };

typedef struct {
    Py_buffer ends, inner, values; /* `inner`: where the items of lists start */
} Column;

static const int KINDS[] = {INTEGERS_32, INTEGERS_32, BYTES, LIST_OF_BYTES,    BYTES,
                            BYTES,       INTEGERS_64, BYTES, LIST_OF_INTEGERS, LIST_OF_BYTES};
enum { BLOCK_ID, TXINDEX, TXID, MAGICS, SENDERS, OUTPUTS, FEE, RAW, SPENT_AT, TRACKED_BY, COLUMNS };

typedef struct {
    Column columns[COLUMNS];
    Py_buffer has_heights; /* by row, whether `spent_at` is not null */
    int32_t start;         /* rows of blocks below are only checked */
    Network network;
} Batch;

static int32_t integer(const Column *column, int64_t n) { return ((const int32_t *)column->values.buf)[n]; }

/* Find item `n` among those whose ends are in a buffer; return whether it is inside of what holds them. */
static int item(const Py_buffer *ends, int64_t n, int64_t limit, int64_t *from, int64_t *until)
{
    if (n < 0 || n + 1 >= ends->len / 4)
        return 0;
    *from = ((const int32_t *)ends->buf)[n];
    *until = ((const int32_t *)ends->buf)[n + 1];
    return 0 <= *from && *from <= *until && *until <= limit;
}

static int bytes_in(const Py_buffer *ends, const Py_buffer *values, int64_t n, Cursor *cursor)
{
    int64_t from, until;
    if (!item(ends, n, values->len, &from, &until))
        return 0;
    cursor->at = (const uint8_t *)values->buf + from;
    cursor->end = (const uint8_t *)values->buf + until;
    return 1;
}

static int bytes(const Batch *batch, int column, int64_t n, Cursor *cursor)
{
    return bytes_in(&batch->columns[column].ends, &batch->columns[column].values, n, cursor);
}

/* The rows in COPY's binary format. */

#define BYTEA 17
#define INT4 23
#define TEXT 25
#define ENOUGH 4000000       /* bytes to return at once */
#define MOST_BYTES 500000000 /* of a field, whose size must fit into 31 bits */

typedef struct {
    uint8_t *data;
    size_t size, room;
    int is_full; /* there was no memory */
} Copy;

static void put(Copy *copy, const void *data, size_t size)
{
    if (copy->size + size > copy->room) {
        size_t room = 2 * copy->room + size + 4096;
        uint8_t *moved = realloc(copy->data, room);
        if (moved == NULL) {
            copy->is_full = 1;
            return;
        }
        copy->data = moved;
        copy->room = room;
    }
    memcpy(copy->data + copy->size, data, size);
    copy->size += size;
}

static void put_32(Copy *copy, int32_t value)
{
    uint32_t swapped = __builtin_bswap32(value);
    put(copy, &swapped, 4);
}

static void put_field(Copy *copy, const void *data, size_t size)
{
    put_32(copy, size);
    put(copy, data, size);
}

/* Begin a field whose size is not known; `end_field` gets what this returns. */
static size_t begin_field(Copy *copy)
{
    put_32(copy, 0);
    return copy->size;
}

/* Write the size of a field; return whether it is one that a field can have. */
static int end_field(Copy *copy, size_t begin)
{
    if (copy->is_full)
        return 1;
    uint32_t size = __builtin_bswap32(copy->size - begin);
    memcpy(copy->data + begin - 4, &size, 4);
    return copy->size - begin <= MOST_BYTES;
}

static void begin_array(Copy *copy, int32_t type, int32_t count)
{
    put_32(copy, count ? 1 : 0);
    put_32(copy, 0);
    put_32(copy, type);
    if (count) {
        put_32(copy, count);
        put_32(copy, 1);
    }
}

/* Write a list of bytes whose items ascend; return whether they do. Text has to be ASCII, and not empty. */
static int put_list(Copy *copy, const Batch *batch, int column, int64_t n, int32_t type, int64_t *count)
{
    const Column *list = &batch->columns[column];
    int64_t from, until;
    if (!item(&list->ends, n, list->inner.len / 4 - 1, &from, &until))
        return 0;
    *count = until - from;
    if (type == TEXT && !*count) { /* null */
        put_32(copy, -1);
        return 1;
    }
    size_t begin = begin_field(copy);
    begin_array(copy, type, *count);
    Cursor before = {NULL, NULL}, now;
    for (int64_t i = from; i < until; i++, before = now) {
        if (!bytes_in(&list->inner, &list->values, i, &now))
            return 0;
        size_t size = now.end - now.at, size_before = before.end - before.at;
        if (i > from) {
            size_t common = size < size_before ? size : size_before;
            int order = common ? memcmp(before.at, now.at, common) : 0;
            if (order > 0 || (order == 0 && size <= size_before))
                return 0;
        }
        if (type == TEXT && !size)
            return 0;
        for (size_t j = 0; type == TEXT && j < size; j++)
            if (now.at[j] & 0x80)
                return 0;
        put_field(copy, now.at, size);
    }
    return end_field(copy, begin);
}

static int put_heights(Copy *copy, const Batch *batch, int64_t n, int32_t block_id, int64_t spends)
{
    if (!((const uint8_t *)batch->has_heights.buf)[n]) {
        put_32(copy, -1);
        return 1;
    }
    const Column *list = &batch->columns[SPENT_AT];
    int64_t from, until;
    if (!item(&list->ends, n, list->values.len / 4, &from, &until) || until - from != spends)
        return 0;
    size_t begin = begin_field(copy);
    begin_array(copy, INT4, spends);
    for (int64_t i = from; i < until; i++) {
        int32_t place = integer(list, i);
        if (place < 0 || place > 2 * (int64_t)block_id)
            return 0;
        put_32(copy, 4);
        put_32(copy, place);
    }
    return end_field(copy, begin);
}

static void put_spent(Copy *copy, const Spent *spent, size_t size)
{
    uint8_t count[3] = {size, 0, 0};
    put(copy, &spent->value, 8);
    if (size >= 0xFD) {
        count[0] = 0xFD;
        count[1] = size & 0xFF;
        count[2] = size >> 8;
    }
    put(copy, count, size < 0xFD ? 1 : 3);
    put(copy, spent->script, size);
}

/* Check a row, and write it; return whether it is right for sure. */
static int check_row(const Batch *batch, int64_t n, Copy *copy)
{
    const Column *columns = batch->columns;
    int32_t block_id = integer(&columns[BLOCK_ID], n), txindex = integer(&columns[TXINDEX], n);
    Cursor raw, txid, senders, outputs;
    if (!bytes(batch, RAW, n, &raw) || !bytes(batch, TXID, n, &txid) || !bytes(batch, SENDERS, n, &senders) ||
        !bytes(batch, OUTPUTS, n, &outputs) || txindex < 1 || raw.end - raw.at > MOST_BYTES)
        return 0;
    Transaction transaction;
    uint8_t id[32];
    if (!read_transaction(raw, &transaction))
        return 0;
    hash_transaction(&transaction, id);
    if (!take_reversed(&txid, id, 32) || txid.at != txid.end)
        return 0;
    for (int i = 0; i < 16; i++) {
        uint8_t byte = id[i];
        id[i] = id[31 - i];
        id[31 - i] = byte;
    }
    uint64_t pays = 0, spends = 0;
    if (!check_outputs(&transaction, &outputs, &batch->network, &pays))
        return 0;
    uint16_t fields = __builtin_bswap16(11);
    put(copy, &fields, 2);
    put_32(copy, 4);
    put_32(copy, block_id);
    put_32(copy, 4);
    put_32(copy, txindex);
    put_field(copy, id, 32);
    put_field(copy, raw.at, raw.end - raw.at);
    int64_t magics, tracking;
    if (!put_list(copy, batch, MAGICS, n, BYTEA, &magics))
        return 0;
    size_t begin = begin_field(copy), kept = 0;
    if (!WORD(&senders, "["))
        return 0;
    for (uint64_t i = 0; i < transaction.inputs; i++) {
        Spending spending;
        Spent spent;
        if ((i && !WORD(&senders, ", ")) || !next_spending(&transaction, &spending) ||
            !check_sender(&senders, &spending, &spent, &batch->network))
            return 0;
        spends += spent.value;
        kept += spent.size;
        if (spends > batch->network.largest || kept >= MOST_KEPT)
            return 0;
        put_spent(copy, &spent, spent.size);
    }
    if (!end_field(copy, begin) || !WORD(&senders, "]") || senders.at != senders.end)
        return 0;
    int64_t fee = (int64_t)spends - (int64_t)pays, swapped = __builtin_bswap64(fee);
    if (fee != ((const int64_t *)columns[FEE].values.buf)[n])
        return 0;
    put_field(copy, "\x01{}", 3);
    put_field(copy, &swapped, 8);
    put_field(copy, "export", 6);
    if (!put_heights(copy, batch, n, block_id, transaction.inputs) ||
        !put_list(copy, batch, TRACKED_BY, n, TEXT, &tracking))
        return 0;
    return magics || tracking;
}

static int read_column(PyObject *object, int kind, Column *column, Py_ssize_t *rows)
{
    PyObject *ends, *inner, *values;
    if (!PyArg_ParseTuple(object, "OOO", &ends, &inner, &values))
        return 0;
    Py_buffer *buffers[] = {&column->ends, &column->inner, &column->values};
    PyObject *objects[] = {ends, inner, values};
    for (int i = 0; i < 3; i++)
        if (objects[i] != Py_None && PyObject_GetBuffer(objects[i], buffers[i], PyBUF_SIMPLE) < 0)
            return 0;
    int is_list = kind == LIST_OF_BYTES || kind == LIST_OF_INTEGERS;
    Py_ssize_t count = kind == INTEGERS_32   ? column->values.len / 4
                       : kind == INTEGERS_64 ? column->values.len / 8
                                             : column->ends.len / 4 - 1;
    if (column->values.obj == NULL || (is_list && column->ends.obj == NULL))
        count = -1;
    if (*rows < 0 || count < *rows)
        *rows = count;
    return 1;
}

static PyObject *check_rows(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *columns, *has_heights, *result = NULL;
    Py_ssize_t at, stop, rows = -1;
    const char *p2pkh, *p2sh, *hrp;
    Py_ssize_t p2pkh_size, p2sh_size, hrp_size;
    Batch batch;
    memset(&batch, 0, sizeof batch);
    int32_t lowest, highest, block_id, txindex;
    if (!PyArg_ParseTuple(arguments, "O!Onn(ii)iii(y#y#s#pK)", &PyTuple_Type, &columns, &has_heights, &at, &stop,
                          &block_id, &txindex, &lowest, &highest, &batch.start, &p2pkh, &p2pkh_size, &p2sh, &p2sh_size,
                          &hrp, &hrp_size, &batch.network.has_witnesses, &batch.network.largest))
        return NULL;
    int is_read = PyObject_GetBuffer(has_heights, &batch.has_heights, PyBUF_SIMPLE) == 0;
    if (is_read && PyTuple_GET_SIZE(columns) != COLUMNS) {
        PyErr_SetString(PyExc_ValueError, "there are not as many columns as inputs have");
        is_read = 0;
    }
    for (int i = 0; is_read && i < COLUMNS; i++) {
        Py_ssize_t count = -1;
        is_read = read_column(PyTuple_GET_ITEM(columns, i), KINDS[i], &batch.columns[i], &count);
        rows = i && rows < count ? rows : count;
    }
    if (is_read && (at < 0 || stop > rows || stop > batch.has_heights.len)) {
        PyErr_SetString(PyExc_ValueError, "there are not so many rows");
        is_read = 0;
    }
    if (is_read) {
        Copy copy = {NULL, 0, 0, 0};
        if (!has_multiples)
            make_multiples();
        Py_BEGIN_ALLOW_THREADS
        if (p2pkh_size == 1 && p2sh_size == 1 && hrp_size <= MOST_HRP) {
            set_network(&batch.network, (uint8_t)p2pkh[0], (uint8_t)p2sh[0], hrp, hrp_size);
            for (; at < stop && copy.size < ENOUGH && !copy.is_full; at++) {
                int32_t block = integer(&batch.columns[BLOCK_ID], at), place = integer(&batch.columns[TXINDEX], at);
                if (block < lowest || block > highest || block < block_id || (block == block_id && place <= txindex))
                    break;
                size_t size = copy.size;
                int is_right = check_row(&batch, at, &copy);
                if (!is_right || block < batch.start)
                    copy.size = size;
                if (!is_right)
                    break;
                block_id = block;
                txindex = place;
            }
        }
        Py_END_ALLOW_THREADS
        const char *data = copy.data == NULL ? "" : (const char *)copy.data;
        result = copy.is_full ? PyErr_NoMemory() : Py_BuildValue("ny#", at, data, (Py_ssize_t)copy.size);
        free(copy.data);
    }
    if (batch.has_heights.obj != NULL)
        PyBuffer_Release(&batch.has_heights);
    for (int i = 0; i < COLUMNS; i++) {
        Py_buffer *buffers[] = {&batch.columns[i].ends, &batch.columns[i].inner, &batch.columns[i].values};
        for (int j = 0; j < 3; j++)
            if (buffers[j]->obj != NULL)
                PyBuffer_Release(buffers[j]);
    }
    return result;
}

static PyMethodDef methods[] = {
    {"check_rows", check_rows, METH_VARARGS, "Check rows of usual forms, and write them as COPY takes them."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_rows", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rows(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddStringConstant(module, "SOURCE", SOURCE) < 0)
        Py_CLEAR(module);
    return module;
}

#else

PyMODINIT_FUNC PyInit__rows(void)
{
    PyErr_SetString(PyExc_ImportError, "there is no form for this processor or compiler");
    return NULL;
}

#endif
