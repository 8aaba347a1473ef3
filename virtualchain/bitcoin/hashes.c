/* Double SHA-256 of the transactions of a block, of its Merkle trees, and of consensus hashes, with the processor's own
 * instructions and, if that takes long, without the interpreter's lock. Compiled by .ci/compile.py; hashes.py does the
 * same with hashlib: on a processor without such instructions that is faster, so importing this module fails there.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <stdlib.h>

#include "sha.h"

static PyObject *hash_transactions(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer raw, starts, outputs_ends;
    PyObject *ids = NULL, *whole = NULL, *result = NULL;
    if (!PyArg_ParseTuple(arguments, "y*y*y*", &raw, &starts, &outputs_ends))
        return NULL;
    const uint8_t *data = raw.buf;
    const uint32_t *from = starts.buf, *until = outputs_ends.buf;
    Py_ssize_t count = starts.len / 4 - 1;
    if (count < 0 || outputs_ends.len / 4 < count) {
        PyErr_SetString(PyExc_ValueError, "there are not as many ends as starts");
        goto done;
    }
    for (Py_ssize_t n = 0; n < count; n++)
        if (until[n] > raw.len || from[n + 1] > raw.len || until[n] < from[n] + 6LL || from[n + 1] < until[n] + 4LL) {
            PyErr_SetString(PyExc_ValueError, "a transaction is not inside of the block");
            goto done;
        }
    ids = PyBytes_FromStringAndSize(NULL, 32 * count);
    whole = PyBytes_FromStringAndSize(NULL, 32 * count);
    if (ids == NULL || whole == NULL)
        goto done;
    uint8_t *id = (uint8_t *)PyBytes_AS_STRING(ids), *hash = (uint8_t *)PyBytes_AS_STRING(whole);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t n = 0; n < count; n++, id += 32, hash += 32) {
        const uint8_t *start = data + from[n];
        Sha256 sha256;
        begin(&sha256);
        add(&sha256, start, from[n + 1] - from[n]);
        end_twice(&sha256, hash);
        if (start[4]) { /* no marker of a witness (BIP 144) */
            memcpy(id, hash, 32);
            continue;
        }
        begin(&sha256);
        add(&sha256, start, 4);
        add(&sha256, start + 6, until[n] - from[n] - 6);
        add(&sha256, data + from[n + 1] - 4, 4);
        end_twice(&sha256, id);
    }
    Py_END_ALLOW_THREADS
    result = PyTuple_Pack(2, ids, whole);
done:
    Py_XDECREF(ids);
    Py_XDECREF(whole);
    PyBuffer_Release(&raw);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&outputs_ends);
    return result;
}

static PyObject *merkle_rows(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_buffer leaves;
    if (PyObject_GetBuffer(argument, &leaves, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t count = leaves.len / 32, total = 1;
    for (size_t n = count; n > 1; n = (n + 1) / 2)
        total += n;
    PyObject *rows = count ? PyBytes_FromStringAndSize(NULL, 32 * total) : NULL;
    if (rows == NULL) {
        PyBuffer_Release(&leaves);
        return count ? NULL : PyErr_Format(PyExc_ValueError, "a Merkle tree needs at least one hash");
    }
    uint8_t *row = (uint8_t *)PyBytes_AS_STRING(rows);
    memcpy(row, leaves.buf, 32 * count);
    PyBuffer_Release(&leaves);
    Py_BEGIN_ALLOW_THREADS
    for (; count > 1; row += 32 * count, count = (count + 1) / 2)
        for (size_t n = 0; n < (count + 1) / 2; n++) {
            const uint8_t *left = row + 64 * n, *right = 2 * n + 1 < count ? left + 32 : left;
            Sha256 sha256;
            begin(&sha256);
            add(&sha256, left, 32);
            add(&sha256, right, 32);
            end_twice(&sha256, row + 32 * (count + n));
        }
    Py_END_ALLOW_THREADS
    return rows;
}

typedef struct {
    uint8_t bytes[32];
    size_t size;
} Leaf;

/* Read lower-case hex; the bytes are in the order in which they are written. */
static int read_hex(PyObject *text, size_t size, uint8_t *bytes)
{
    Py_ssize_t length;
    const char *digits = PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &length) : NULL;
    if (digits == NULL || (size_t)length != 2 * size)
        return 0;
    for (size_t i = 0; i < 2 * size; i++) {
        char digit = digits[i];
        int value = digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
        if (value < 0)
            return 0;
        bytes[i / 2] = i % 2 ? bytes[i / 2] | value : value << 4;
    }
    return 1;
}

/* As their hex is sorted: byte by byte, and a hash in front of a longer one that begins with it. */
static int compare(const void *left, const void *right)
{
    const Leaf *a = left, *b = right;
    int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

#define MOST_PRIORS 63

static PyObject *consensus_hash(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *ops_hash, *prior;
    if (!PyArg_ParseTuple(arguments, "OO!", &ops_hash, &PyList_Type, &prior))
        return NULL;
    Leaf row[MOST_PRIORS + 2];
    size_t count = PyList_GET_SIZE(prior) + 1;
    int is_valid = count <= MOST_PRIORS + 1 && read_hex(ops_hash, row[0].size = 32, row[0].bytes);
    for (size_t i = 1; is_valid && i < count; i++)
        is_valid = read_hex(PyList_GET_ITEM(prior, i - 1), row[i].size = 16, row[i].bytes);
    if (!is_valid) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "an ops hash has 64 hex digits, a consensus hash 32");
        return NULL;
    }
    qsort(row, count, sizeof *row, compare);
    for (size_t i = 0; i < count; i++) /* hashes are written backwards */
        for (size_t j = 0; j < row[i].size / 2; j++) {
            uint8_t byte = row[i].bytes[j];
            row[i].bytes[j] = row[i].bytes[row[i].size - 1 - j];
            row[i].bytes[row[i].size - 1 - j] = byte;
        }
    for (; count > 1; count = (count + 1) / 2) {
        if (count % 2)
            row[count] = row[count - 1];
        for (size_t n = 0; n < (count + 1) / 2; n++) {
            Sha256 sha256;
            begin(&sha256);
            add(&sha256, row[2 * n].bytes, row[2 * n].size);
            add(&sha256, row[2 * n + 1].bytes, row[2 * n + 1].size);
            end_twice(&sha256, row[n].bytes);
            row[n].size = 32;
        }
    }
    uint8_t root[32], digest[20];
    for (int i = 0; i < 32; i++)
        root[i] = row[0].bytes[31 - i];
    Sha256 sha256;
    begin(&sha256);
    add(&sha256, root, 32);
    end(&sha256, root);
    ripemd160(root, digest);
    char text[32];
    for (int i = 0; i < 32; i++)
        text[i] = "0123456789abcdef"[i % 2 ? digest[i / 2] & 15 : digest[i / 2] >> 4];
    return PyUnicode_FromStringAndSize(text, 32);
}

static PyMethodDef methods[] = {
    {"consensus_hash", consensus_hash, METH_VARARGS, "Mix a block's ops hash with its prior consensus hashes."},
    {"hash_transactions", hash_transactions, METH_VARARGS, "Hash transactions without and with their witnesses."},
    {"merkle_rows", merkle_rows, METH_O, "Compute the Merkle tree over digests, row by row."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_hashes", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__hashes(void)
{
    if (!has_instructions()) {
        PyErr_SetString(PyExc_ImportError, "this processor has no instructions for SHA-256");
        return NULL;
    }
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddStringConstant(module, "SOURCE", SOURCE) < 0)
        Py_CLEAR(module);
    return module;
}

#else

PyMODINIT_FUNC PyInit__hashes(void)
{
    PyErr_SetString(PyExc_ImportError, "there is no form for this processor or compiler");
    return NULL;
}

#endif
