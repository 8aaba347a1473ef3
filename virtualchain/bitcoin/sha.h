/* SHA-256, with the processor's own instructions where it has them, and RIPEMD-160. */

#ifndef SHA_H
#define SHA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

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

static uint32_t rotate(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

static void compress_anywhere(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (; blocks > 0; blocks--, data += 64) {
        uint32_t words[64], s[8];
        for (int i = 0; i < 16; i++) {
            memcpy(words + i, data + 4 * i, 4);
            words[i] = __builtin_bswap32(words[i]);
        }
        for (int i = 16; i < 64; i++) {
            uint32_t x = words[i - 15], y = words[i - 2];
            words[i] = words[i - 16] + words[i - 7] + (rotate(x, 25) ^ rotate(x, 14) ^ x >> 3) +
                       (rotate(y, 15) ^ rotate(y, 13) ^ y >> 10);
        }
        memcpy(s, state, sizeof s);
        for (int i = 0; i < 64; i++) {
            uint32_t one = s[7] + (rotate(s[4], 26) ^ rotate(s[4], 21) ^ rotate(s[4], 7)) +
                           ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + words[i];
            uint32_t two = (rotate(s[0], 30) ^ rotate(s[0], 19) ^ rotate(s[0], 10)) +
                           ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
            memmove(s + 1, s, 28);
            s[4] += one;
            s[0] = one + two;
        }
        for (int i = 0; i < 8; i++)
            state[i] += s[i];
    }
}

#if defined(__x86_64__)
static int has_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29));
}

__attribute__((target("sha,sse4.1,ssse3"))) static void compress_here(uint32_t state[8], const uint8_t *data, size_t blocks)
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

static void compress(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    static int is_able = -1;
    if (is_able < 0)
        is_able = has_instructions();
    (is_able ? compress_here : compress_anywhere)(state, data, blocks);
}
#else
static int has_instructions(void) { return 0; }

#define compress compress_anywhere
#endif

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

/* RIPEMD-160 of 32 bytes, which make one block. */

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

#endif
