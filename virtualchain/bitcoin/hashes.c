/* Double SHA-256 of the transactions of a block and of its Merkle trees, with the processor's own instructions and
 * without the interpreter's lock. Compiled by .ci/compile.py, and used by commitments.py, which does the same with
 * hashlib: on a processor without such instructions that is faster, so importing this module fails there.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
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

static PyObject *merkle_root(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_buffer leaves;
    if (PyObject_GetBuffer(argument, &leaves, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t count = leaves.len / 32;
    /* One more, for a row whose last node is repeated. */
    uint8_t *row = count ? PyMem_Malloc(32 * (count + 1)) : NULL;
    if (row == NULL) {
        PyBuffer_Release(&leaves);
        return count ? PyErr_NoMemory() : PyErr_Format(PyExc_ValueError, "a Merkle tree needs at least one hash");
    }
    memcpy(row, leaves.buf, 32 * count);
    PyBuffer_Release(&leaves);
    Py_BEGIN_ALLOW_THREADS
    for (; count > 1; count = (count + 1) / 2) {
        if (count % 2)
            memcpy(row + 32 * count, row + 32 * (count - 1), 32);
        for (size_t n = 0; n < (count + 1) / 2; n++) {
            Sha256 sha256;
            begin(&sha256);
            add(&sha256, row + 64 * n, 64);
            end_twice(&sha256, row + 32 * n);
        }
    }
    Py_END_ALLOW_THREADS
    PyObject *root = PyBytes_FromStringAndSize((char *)row, 32);
    PyMem_Free(row);
    return root;
}

static PyMethodDef methods[] = {
    {"hash_transactions", hash_transactions, METH_VARARGS, "Hash transactions without and with their witnesses."},
    {"merkle_root", merkle_root, METH_O, "Compute the Merkle root of digests, one after the other."},
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
