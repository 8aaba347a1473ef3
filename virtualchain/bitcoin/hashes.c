/* Double SHA-256 of the transactions of a block, of its Merkle trees, and of consensus hashes, with the processor's own
 * instructions and, if that takes long, without the interpreter's lock. Compiled by .ci/compile.py; hashes.py does the
 * same with hashlib: on a processor without such instructions that is faster, so importing this module fails there.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

typedef struct {
    uint32_t state[8];
    uint8_t block[64]; /* the last bytes, which are not a block yet */
    uint64_t size;
} Sha256;

static int has_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}

__attribute__((target("sha,sse4.1,ssse3"))) static void compress(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    /* The instructions keep the words a to h as abef and cdgh. */
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i cdgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, cdgh, 8);
    cdgh = _mm_blend_epi16(cdgh, low, 0xF0);
    for (; blocks > 0; blocks--, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i words[4];
        for (int i = 0; i < 4; i++)
            words[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) { /* four rounds each */
            __m128i sum = _mm_add_epi32(words[i & 3], _mm_loadu_si128((const __m128i *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
            if (i < 12) { /* the words for the rounds after the next twelve */
                __m128i next = _mm_sha256msg1_epu32(words[i & 3], words[(i + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(words[(i + 3) & 3], words[(i + 2) & 3], 4));
                words[i & 3] = _mm_sha256msg2_epu32(next, words[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    cdgh = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(low, cdgh, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(cdgh, low, 8));
}

static void begin(Sha256 *hash)
{
    static const uint32_t first[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    memcpy(hash->state, first, sizeof first);
    hash->size = 0;
}

static void add(Sha256 *hash, const uint8_t *data, size_t size)
{
    size_t kept = hash->size % 64;
    hash->size += size;
    if (kept + size < 64) {
        memcpy(hash->block + kept, data, size);
        return;
    }
    if (kept) {
        memcpy(hash->block + kept, data, 64 - kept);
        compress(hash->state, hash->block, 1);
        data += 64 - kept;
        size -= 64 - kept;
    }
    compress(hash->state, data, size / 64);
    memcpy(hash->block, data + size / 64 * 64, size % 64);
}

static void end(Sha256 *hash, uint8_t digest[32])
{
    size_t kept = hash->size % 64;
    hash->block[kept++] = 0x80;
    if (kept > 56) {
        memset(hash->block + kept, 0, 64 - kept);
        compress(hash->state, hash->block, 1);
        kept = 0;
    }
    memset(hash->block + kept, 0, 56 - kept);
    uint64_t bits = __builtin_bswap64(hash->size * 8);
    memcpy(hash->block + 56, &bits, 8);
    compress(hash->state, hash->block, 1);
    for (int i = 0; i < 8; i++) {
        uint32_t word = __builtin_bswap32(hash->state[i]);
        memcpy(digest + 4 * i, &word, 4);
    }
}

static void end_twice(Sha256 *hash, uint8_t digest[32])
{
    end(hash, digest);
    begin(hash);
    add(hash, digest, 32);
    end(hash, digest);
}

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

/* RIPEMD-160 of 32 bytes, which make one block. */

static uint32_t rotate(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

static uint32_t mix(int round, uint32_t x, uint32_t y, uint32_t z)
{
    switch (round) {
    case 0: return x ^ y ^ z;
    case 1: return (x & y) | (~x & z);
    case 2: return (x | ~y) ^ z;
    case 3: return (x & z) | (y & ~z);
    default: return x ^ (y | ~z);
    }
}

static void ripemd160(const uint8_t data[32], uint8_t digest[20])
{
    static const uint32_t constants[2][5] = {
        {0, 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xa953fd4e}, {0x50a28be6, 0x5c4dd124, 0x6d703ef3, 0x7a6d76e9, 0},
    };
    static const uint8_t words[2][80] = {
        {0,  1, 2,  3, 4,  5, 6,  7, 8, 9,  10, 11, 12, 13, 14, 15, 7,  4, 13, 1,  10, 6,  15, 3, 12, 0, 9,
         5,  2, 14, 11, 8, 3, 10, 14, 4, 9, 15, 8,  1,  2,  7,  0,  6,  13, 11, 5, 12, 1,  9, 11, 10, 0, 8, 12, 4,
         13, 3, 7,  15, 14, 5, 6, 2, 4, 0, 5,  9,  7,  12, 2,  10, 14, 1,  3,  8,  11, 6,  15, 13},
        {5,  14, 7,  0, 9, 2,  11, 4, 13, 6, 15, 8,  1,  10, 3,  12, 6, 11, 3,  7,  0,  13, 5,  10, 14, 15, 8,
         12, 4,  9,  1, 2, 15, 5,  1, 3,  7, 14, 6,  9,  11, 8,  12, 2, 10, 0,  4,  13, 8,  6,  4,  1,  3,  11, 15, 0,
         5,  12, 2,  13, 9, 7, 10, 14, 12, 15, 10, 4, 1, 5,  8,  7,  6, 2,  13, 14, 0,  3,  9,  11},
    };
    static const uint8_t shifts[2][80] = {
        {11, 14, 15, 12, 5,  8,  7,  9,  11, 13, 14, 15, 6,  7,  9,  8,  7,  6,  8,  13, 11, 9,  7,  15, 7,  12, 15,
         9,  11, 7,  13, 12, 11, 13, 6,  7,  14, 9,  13, 15, 14, 8,  13, 6,  5,  12, 7,  5,  11, 12, 14, 15, 14, 15, 9,
         8,  9,  14, 5,  6,  8,  6,  5,  12, 9,  15, 5,  11, 6,  8,  13, 12, 5,  12, 13, 14, 11, 8,  5,  6},
        {8,  9,  9,  11, 13, 15, 15, 5,  7,  7,  8,  11, 14, 14, 12, 6,  9,  13, 15, 7,  12, 8,  9,  11, 7,  7,  12,
         7,  6,  15, 13, 11, 9,  7,  15, 11, 8,  6,  6,  14, 12, 13, 5,  14, 13, 13, 7,  5,  15, 5,  8,  11, 14, 14, 6,
         14, 6,  9,  12, 9,  12, 5,  15, 8,  8,  5,  12, 9,  12, 5,  14, 6,  8,  13, 6,  5,  15, 13, 11, 11},
    };
    static const uint32_t first[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint32_t block[16] = {0}, lines[2][5];
    memcpy(block, data, 32);
    block[8] = 0x80;
    block[14] = 256; /* bits */
    for (int line = 0; line < 2; line++) {
        uint32_t *l = lines[line];
        memcpy(l, first, sizeof first);
        for (int i = 0; i < 80; i++) {
            int round = i / 16;
            uint32_t sum = l[0] + mix(line ? 4 - round : round, l[1], l[2], l[3]);
            sum = rotate(sum + block[words[line][i]] + constants[line][round], shifts[line][i]) + l[4];
            l[0] = l[4];
            l[4] = l[3];
            l[3] = rotate(l[2], 10);
            l[2] = l[1];
            l[1] = sum;
        }
    }
    for (int i = 0; i < 5; i++) {
        uint32_t word = first[(i + 1) % 5] + lines[0][(i + 2) % 5] + lines[1][(i + 3) % 5];
        memcpy(digest + 4 * i, &word, 4);
    }
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
