/* What a taproot output commits to, as curve.py computes it: points of secp256k1 (BIP 340, BIP 341).
 *
 * All numbers are public, so nothing here takes constant time. Include it after sha.h.
 */

#ifndef CURVE_H
#define CURVE_H

#ifdef __SIZEOF_INT128__

typedef unsigned __int128 Wide;

typedef struct {
    uint64_t n[4]; /* below the prime, the least significant first */
} Field;

typedef struct {
    Field x, y;
} Point;

typedef struct {
    Field x, y, z; /* the point (x / z^2, y / z^3) */
} Scaled;

#define REST 0x1000003D1ULL /* 2^256 minus the prime */
#define WINDOW 4
#define WINDOWS (256 / WINDOW)

static const Field PRIME = {{0xFFFFFFFEFFFFFC2FULL, ~0ULL, ~0ULL, ~0ULL}};
static const Field ORDER = {{0xBFD25E8CD0364141ULL, 0xBAAEDCE6AF48A03BULL, 0xFFFFFFFFFFFFFFFEULL, ~0ULL}};
static const Point GENERATOR = {
    {{0x59F2815B16F81798ULL, 0x029BFCDB2DCE28D9ULL, 0x55A06295CE870B07ULL, 0x79BE667EF9DCBBACULL}},
    {{0x9C47D08FFB10D4B8ULL, 0xFD17B448A6855419ULL, 0x5DA4FBFC0E1108A8ULL, 0x483ADA7726A3C465ULL}},
};

static Point multiples[WINDOWS][(1 << WINDOW) - 1]; /* by window and digit: the generator times the digit there */
static int has_multiples;

static int is_below(const Field *a, const Field *b)
{
    for (int i = 3; i >= 0; i--)
        if (a->n[i] != b->n[i])
            return a->n[i] < b->n[i];
    return 0;
}

static int is_zero(const Field *a) { return !(a->n[0] | a->n[1] | a->n[2] | a->n[3]); }

static Field read_number(const uint8_t bytes[32])
{
    Field a;
    for (int i = 0; i < 4; i++) {
        memcpy(a.n + 3 - i, bytes + 8 * i, 8);
        a.n[3 - i] = __builtin_bswap64(a.n[3 - i]);
    }
    return a;
}

/* Add a number of up to 64 bits; return what is carried out of the highest word. */
static inline uint64_t add_to(Field *a, Wide number)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        number += a->n[i];
        a->n[i] = (uint64_t)number;
        number >>= 64;
    }
    return (uint64_t)number;
}

/* Reduce a number whose carry out of the highest word is `carry`, and above it only once the prime. */
static inline Field reduce(Field a, uint64_t carry)
{
    carry = add_to(&a, (Wide)carry * REST);
    Field less = a; /* what is left without the prime, if the sum is 2^256 or more */
    return add_to(&less, REST) | carry ? less : a;
}

static inline Field plus(Field a, Field b)
{
    Wide sum = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        sum += (Wide)a.n[i] + b.n[i];
        a.n[i] = (uint64_t)sum;
        sum >>= 64;
    }
    Field less = a;
    return add_to(&less, REST) | (uint64_t)sum ? less : a;
}

static inline Field minus(Field a, Field b)
{
    Wide difference = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        difference = (Wide)a.n[i] - b.n[i] - (difference >> 64 & 1);
        a.n[i] = (uint64_t)difference;
    }
    uint64_t borrow = difference >> 64 & 1; /* then the prime is added: 2^256 less REST */
    difference = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        difference = (Wide)a.n[i] - (i ? 0 : borrow * REST) - (difference >> 64 & 1);
        a.n[i] = (uint64_t)difference;
    }
    return a;
}

static Field times(Field a, Field b)
{
    uint64_t product[8] = {0};
    Wide sum;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        sum = 0;
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            sum += (Wide)a.n[i] * b.n[j] + product[i + j];
            product[i + j] = (uint64_t)sum;
            sum >>= 64;
        }
        product[i + 4] = (uint64_t)sum;
    }
    Field low;
    sum = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        sum += (Wide)product[i + 4] * REST + product[i];
        low.n[i] = (uint64_t)sum;
        sum >>= 64;
    }
    return reduce(low, (uint64_t)sum);
}

/* Square so many times, then multiply. */
static Field chain(Field a, int squarings, Field factor)
{
    for (int i = 0; i < squarings; i++)
        a = times(a, a);
    return times(a, factor);
}

/* Raise to 223 ones, in binary, and then to 22 after a zero: with that, the exponents below begin. */
static Field power(Field a, Field *two)
{
    Field x2 = chain(a, 1, a), x3 = chain(x2, 1, a), x6 = chain(x3, 3, x3), x9 = chain(x6, 3, x3);
    Field x11 = chain(x9, 2, x2), x22 = chain(x11, 11, x11), x44 = chain(x22, 22, x22), x88 = chain(x44, 44, x44);
    Field x176 = chain(x88, 88, x88), x220 = chain(x176, 44, x44);
    *two = x2;
    return chain(chain(x220, 3, x3), 23, x22);
}

/* Raise to the prime minus two. */
static Field inverse(Field a)
{
    Field two, result = power(a, &two);
    return chain(chain(chain(result, 5, a), 3, two), 2, a);
}

/* Raise to a quarter of the prime plus one. */
static Field root(Field a)
{
    Field two, result = power(a, &two);
    result = chain(result, 6, two);
    result = times(result, result);
    return times(result, result);
}

static Point affine(Scaled point)
{
    Field factor = inverse(point.z), square = times(factor, factor);
    Point result = {times(point.x, square), times(times(point.y, square), factor)};
    return result;
}

static Scaled twice(Point point)
{
    Field square = times(point.y, point.y), s = times(point.x, square), slope = times(point.x, point.x);
    s = plus(s, s);
    s = plus(s, s);
    slope = plus(plus(slope, slope), slope);
    Field eight = times(square, square);
    for (int i = 0; i < 3; i++)
        eight = plus(eight, eight);
    Scaled result;
    result.x = minus(times(slope, slope), plus(s, s));
    result.y = minus(times(slope, minus(s, result.x)), eight);
    result.z = plus(point.y, point.y);
    return result;
}

/* Add two points with different x coordinates; return whether they have. */
static int join(Scaled *left, const Point *right)
{
    Field square = times(left->z, left->z);
    Field h = minus(times(right->x, square), left->x);
    Field r = minus(times(times(right->y, square), left->z), left->y);
    if (is_zero(&h))
        return 0;
    Field h_square = times(h, h), h_cube = times(h, h_square), v = times(left->x, h_square);
    Field x = minus(minus(times(r, r), h_cube), plus(v, v));
    left->y = minus(times(r, minus(v, x)), times(left->y, h_cube));
    left->z = times(left->z, h);
    left->x = x;
    return 1;
}

static void make_multiples(void)
{
    static const Field one = {{1, 0, 0, 0}};
    Point base = GENERATOR;
    for (int window = 0; window < WINDOWS; window++) {
        Point *row = multiples[window];
        row[0] = base;
        row[1] = affine(twice(base));
        for (int digit = 2; digit <= (1 << WINDOW) - 1; digit++) {
            Scaled next = {row[digit - 1].x, row[digit - 1].y, one};
            join(&next, &base);
            if (digit < (1 << WINDOW) - 1)
                row[digit] = affine(next);
            else
                base = affine(next);
        }
    }
    has_multiples = 1;
}

static void tag(Sha256 *hash, const char *name)
{
    uint8_t digest[32];
    begin(hash);
    add(hash, (const uint8_t *)name, strlen(name));
    end(hash, digest);
    begin(hash);
    add(hash, digest, 32);
    add(hash, digest, 32);
}

/* Check whether an internal key and the root of a tree of scripts make an output key whose y is odd or not.
 * What is not certain is not: a sum of equal points, which nobody can make.
 */
static int is_tweaked(const uint8_t key[32], const uint8_t tree[32], const uint8_t output[32], int is_odd)
{
    static const Field seven = {{7, 0, 0, 0}}, one = {{1, 0, 0, 0}};
    uint8_t digest[32];
    Sha256 hash;
    tag(&hash, "TapTweak");
    add(&hash, key, 32);
    add(&hash, tree, 32);
    end(&hash, digest);
    Field x = read_number(key), factor = read_number(digest), expected = read_number(output);
    if (!is_below(&x, &PRIME) || !is_below(&factor, &ORDER))
        return 0;
    Field square = plus(times(times(x, x), x), seven), y = root(square), again = times(y, y);
    if (memcmp(&again, &square, sizeof again))
        return 0;
    if (y.n[0] & 1) {
        static const Field zero = {{0, 0, 0, 0}};
        y = minus(zero, y);
    }
    Scaled total = {x, y, one};
    for (int window = 0; window < WINDOWS; window++) {
        int digit = factor.n[window / 16] >> window % 16 * WINDOW & ((1 << WINDOW) - 1);
        if (digit && !join(&total, &multiples[window][digit - 1]))
            return 0;
    }
    Point sum = affine(total);
    return !memcmp(&sum.x, &expected, sizeof expected) && (int)(sum.y.n[0] & 1) == is_odd;
}

#else

static const int has_multiples = 1;

static void make_multiples(void) {}

static void tag(Sha256 *hash, const char *name) { begin(hash); }

static int is_tweaked(const uint8_t key[32], const uint8_t tree[32], const uint8_t output[32], int is_odd)
{
    return 0;
}

#endif

#endif
