/* What callbacks see of a transaction: its senders and its outputs, and whether it can spend what it is said to spend.
 * Compiled by .ci/compile.py.
 *
 * It is sure only of transactions in which everything has a usual form, and returns None, or False, for all others,
 * right or wrong: these are for `StoredTransaction` and `_input` in block.py, and `_describe` in transaction.py, which
 * this must never contradict. The rules are those of script.py and spending.py.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

#include "sha.h"

#include "curve.h"

#include "forms.h"

#include "spends.h"

#define TYPES (sizeof NAMES / sizeof *NAMES)

static PyObject *types[TYPES];       /* the names, which all results share */
static PyObject *hash_types[2][4]; /* of signatures: with ANYONECANPAY, and by what is signed */

static PyObject *name_of_hash_type(uint8_t type)
{
    int low = type & 0x1F;
    return hash_types[type >> 7][!type ? 0 : low == 2 || low == 3 ? low : 1];
}

static PyObject *hex(const uint8_t *data, size_t size, int is_reversed)
{
    PyObject *text = PyUnicode_New(2 * size, 127);
    if (text == NULL)
        return NULL;
    Py_UCS1 *at = PyUnicode_1BYTE_DATA(text);
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = data[is_reversed ? size - 1 - i : i];
        *at++ = "0123456789abcdef"[byte >> 4];
        *at++ = "0123456789abcdef"[byte & 15];
    }
    return text;
}

/* Make a tuple of new references; NULL if one of them is NULL. */
static PyObject *tuple_of(PyObject *const *items, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (tuple == NULL || items[i] == NULL) {
            Py_XDECREF(items[i]);
            Py_CLEAR(tuple);
        } else
            PyTuple_SET_ITEM(tuple, i, items[i]);
    }
    return tuple;
}

static PyObject *shared(PyObject *item)
{
    Py_INCREF(item);
    return item;
}

static PyObject *addresses_of(const char *address, size_t length)
{
    PyObject *items[] = {length ? PyUnicode_DecodeASCII(address, length, NULL) : NULL};
    return tuple_of(items, length ? 1 : 0);
}

static PyObject *sender(const Spending *spending, int64_t value, Cursor script, int type, PyObject *addresses,
                        const Shown *shown)
{
    PyObject *keys[MOST_ITEMS], *signatures[MOST_ITEMS];
    for (int i = 0; i < shown->keys.count; i++)
        keys[i] = hex(shown->keys.items[i], shown->keys.sizes[i], 0);
    for (int i = 0; i < shown->count; i++)
        signatures[i] = shared(name_of_hash_type(shown->signatures[i]));
    PyObject *items[] = {
        hex(spending->txid, 32, 1),
        PyLong_FromUnsignedLong(spending->vout),
        PyLong_FromLongLong(value),
        hex(script.at, script.end - script.at, 0),
        shared(types[type]),
        addresses,
        tuple_of(keys, shown->keys.count),
        tuple_of(signatures, shown->count),
    };
    return tuple_of(items, sizeof items / sizeof *items);
}

static int read_network(PyObject *object, Network *network)
{
    const char *p2pkh, *p2sh, *hrp;
    Py_ssize_t p2pkh_size, p2sh_size, hrp_size;
    if (!PyArg_ParseTuple(object, "y#y#s#pK", &p2pkh, &p2pkh_size, &p2sh, &p2sh_size, &hrp, &hrp_size,
                          &network->has_witnesses, &network->largest))
        return -1;
    if (p2pkh_size != 1 || p2sh_size != 1 || hrp_size > MOST_HRP)
        return 0;
    set_network(network, p2pkh[0], p2sh[0], hrp, hrp_size);
    return 1;
}

/* Read a value and a script, as an output has them. */
static int take_output(Cursor *from, int64_t *value, Cursor *script)
{
    const uint8_t *data;
    if (!take(from, 8, &data) || !take_script(from, script))
        return 0;
    memcpy(value, data, 8);
    return 1;
}

/* Look at the inputs of a transaction and what they spend; return whether they can, and all of that is sure.
 * With `senders`, a tuple for each is made; there may be none after an error, which is set.
 */
static int look(Cursor raw, Cursor spent, const Network *network, PyObject **senders)
{
    Transaction transaction;
    if (!read_transaction(raw, &transaction))
        return 0;
    if (senders != NULL && (*senders = PyTuple_New(transaction.inputs)) == NULL)
        return 0;
    for (uint64_t i = 0; i < transaction.inputs; i++) {
        Spending spending;
        Cursor script;
        Shown shown;
        int64_t value;
        int type;
        char address[MOST_ADDRESS];
        size_t length;
        if (!next_spending(&transaction, &spending) || !take_output(&spent, &value, &script) ||
            !classify(script.at, script.end - script.at, network, &type, address, &length) ||
            !show(type, script.at, script.end - script.at, &spending, &shown))
            return 0;
        if (senders == NULL)
            continue;
        PyObject *made = sender(&spending, value, script, type, addresses_of(address, length), &shown);
        if (made == NULL)
            return 0;
        PyTuple_SET_ITEM(*senders, i, made);
    }
    return spent.at == spent.end;
}

static int read_arguments(PyObject *arguments, Cursor *raw, Cursor *spent, Network *network)
{
    const char *data, *packed;
    Py_ssize_t size, packed_size;
    PyObject *values;
    if (!PyArg_ParseTuple(arguments, "y#y#O!", &data, &size, &packed, &packed_size, &PyTuple_Type, &values))
        return -1;
    *raw = (Cursor){(const uint8_t *)data, (const uint8_t *)data + size};
    *spent = (Cursor){(const uint8_t *)packed, (const uint8_t *)packed + packed_size};
    if (!has_multiples)
        make_multiples();
    return read_network(values, network);
}

static PyObject *can_spend(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Cursor raw, spent;
    Network network;
    int is_read = read_arguments(arguments, &raw, &spent, &network);
    if (is_read < 0)
        return NULL;
    return PyBool_FromLong(is_read && look(raw, spent, &network, NULL));
}

static PyObject *show_senders(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Cursor raw, spent;
    Network network;
    PyObject *senders = NULL;
    int is_read = read_arguments(arguments, &raw, &spent, &network);
    if (is_read < 0)
        return NULL;
    if (is_read && look(raw, spent, &network, &senders))
        return senders;
    Py_XDECREF(senders);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *show_outputs(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *data;
    Py_ssize_t size;
    PyObject *values, *outputs;
    Network network;
    Transaction transaction;
    if (!PyArg_ParseTuple(arguments, "y#O!", &data, &size, &PyTuple_Type, &values))
        return NULL;
    int is_read = read_network(values, &network);
    if (is_read < 0)
        return NULL;
    Cursor raw = {(const uint8_t *)data, (const uint8_t *)data + size};
    if (!is_read || !read_transaction(raw, &transaction))
        Py_RETURN_NONE;
    outputs = PyTuple_New(transaction.outputs);
    for (uint64_t n = 0; outputs != NULL && n < transaction.outputs; n++) {
        Cursor script;
        int64_t value;
        int type;
        char address[MOST_ADDRESS];
        size_t length;
        if (!take_output(&transaction.paid, &value, &script) ||
            !classify(script.at, script.end - script.at, &network, &type, address, &length)) {
            Py_DECREF(outputs);
            Py_RETURN_NONE;
        }
        PyObject *items[] = {
            PyLong_FromUnsignedLongLong(n),
            PyLong_FromLongLong(value),
            hex(script.at, script.end - script.at, 0),
            shared(types[type]),
            addresses_of(address, length),
        };
        PyObject *output = tuple_of(items, sizeof items / sizeof *items);
        if (output == NULL)
            Py_CLEAR(outputs);
        else
            PyTuple_SET_ITEM(outputs, n, output);
    }
    return outputs;
}

static PyMethodDef methods[] = {
    {"can_spend", can_spend, METH_VARARGS, "Whether a transaction can spend these outputs, and shows its usual keys."},
    {"show_senders", show_senders, METH_VARARGS, "The fields of a transaction's senders; None if one is unusual."},
    {"show_outputs", show_outputs, METH_VARARGS, "The fields of a transaction's outputs; None if one is unusual."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_shown", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__shown(void)
{
    static const char *const names[2][4] = {
        {"DEFAULT", "ALL", "NONE", "SINGLE"},
        {"ALL|ANYONECANPAY", "ALL|ANYONECANPAY", "NONE|ANYONECANPAY", "SINGLE|ANYONECANPAY"},
    };
    for (size_t i = 0; i < TYPES; i++)
        if ((types[i] = PyUnicode_InternFromString(NAMES[i])) == NULL)
            return NULL;
    for (int i = 0; i < 8; i++)
        if ((hash_types[i / 4][i % 4] = PyUnicode_InternFromString(names[i / 4][i % 4])) == NULL)
            return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddStringConstant(module, "SOURCE", SOURCE) < 0)
        Py_CLEAR(module);
    return module;
}

#else

PyMODINIT_FUNC PyInit__shown(void)
{
    PyErr_SetString(PyExc_ImportError, "there is no form for this processor or compiler");
    return NULL;
}

#endif
