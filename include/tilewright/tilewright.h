/* tilewright.h - quantized linear layers, generated, tuned and cached per shape and machine.
 *
 *     y[M,N] = act( x[M,K] * dequant(w[N,K])^T + bias[N] )
 *
 * This header, quant.h and model.h are the whole public interface, and dlpack.h an adapter to it:
 * what is not there is not API.
 *
 * Conventions
 *   Errors    Every fallible function returns a tw_status; tw_error_message() then gives one
 *             sentence that names the argument, its value and the rule it broke.  On failure
 *             outputs are untouched.
 *   Structs   Whatever a caller fills in begins with `size_t struct_size` (the matching *_INIT
 *             macro sets it); zero means default, so the library can grow a struct without breaking
 *             anybody.
 *   Threads   Functions may be called from any thread.  An object marked [shared] may be used by
 *             several threads at once, one marked [owned] by one thread at a time; a function that
 *             asks for more says so.
 *   Ownership What a caller passes is borrowed for the call, unless it says copied.
 *   Units     Shapes and strides count elements, sizes count bytes, times are nanoseconds.
 */
#ifndef TILEWRIGHT_H
#define TILEWRIGHT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef TW_API
#if defined(__GNUC__)
#define TW_API __attribute__((visibility("default")))
#else
#define TW_API
#endif
#endif

#define TW_VERSION_MAJOR 0
#define TW_VERSION_MINOR 1
#define TW_VERSION_PATCH 0

/* major << 16 | minor << 8 | patch of the library that is actually loaded.  Cannot fail. */
TW_API uint32_t tw_version(void);

/* ---- errors ---------------------------------------------------------------------------------- */

/*   name, value, meaning */
#define TW_STATUSES(X)                                                                             \
    X(OK, 0, "success")                                                                            \
    X(INVALID, 1, "an argument breaks its documented contract")                                    \
    X(UNSUPPORTED, 2, "valid, but nothing here can do it")                                         \
    X(MEMORY, 3, "an allocation failed")                                                           \
    X(DEVICE, 4, "the device or its driver failed")                                                \
    X(COMPILE, 5, "generated code did not compile: a defect of this library")                      \
    X(VERIFY, 6, "a kernel ran but disagreed with the reference")                                  \
    X(CACHE, 7, "the kernel cache cannot be used")                                                 \
    X(MISS, 8, "CACHED_ONLY and the cache has no kernel for this key")                             \
    X(IO, 9, "a file could not be read or written")                                                \
    X(FORMAT, 10, "a file's content breaks its format")                                            \
    X(BUSY, 11, "the object is in use")                                                            \
    X(INTERNAL, 12, "a defect of this library")                                                    \
    X(CANCELLED, 13, "the caller's callback asked to stop")

typedef enum tw_status {
#define TW_ROW(name, value, text) TW_##name = value,
    TW_STATUSES(TW_ROW)
#undef TW_ROW
} tw_status;

/* "INVALID", ...; "?" for a value that is none.  The text is static. */
TW_API const char *tw_status_name(tw_status status);

/* The sentence of this thread's latest failure ("" if none); valid until its next failure, for this
 * thread alone.  Success leaves it as it is. */
TW_API const char *tw_error_message(void);

/* ---- data types ------------------------------------------------------------------------------ */

/* f16i8 is for scales alone: 32 bits an element, an f16 (bits 0 to 15) times an i8 (16 to 23),
 * which f32 holds exactly; the rest is 0.  The f16 is the same for all of each 256 columns of K
 * that begin at a multiple of 256: the two levels of GGUF's K-quants (ggml's d and sc), which
 * layouts keep.  Its exponent is the f16's, and its mantissa that of the products. */
/*   name, value, text, bits, kind, exponent bits, mantissa bits */
#define TW_DTYPES(X)                                                                               \
    X(F32, 1, "f32", 32, FLOAT, 8, 23)                                                             \
    X(F16, 2, "f16", 16, FLOAT, 5, 10)                                                             \
    X(BF16, 3, "bf16", 16, FLOAT, 8, 7)                                                            \
    X(E4M3, 4, "e4m3", 8, FLOAT, 4, 3)                                                             \
    X(E5M2, 5, "e5m2", 8, FLOAT, 5, 2)                                                             \
    X(E3M2, 6, "e3m2", 6, FLOAT, 3, 2)                                                             \
    X(E2M3, 7, "e2m3", 6, FLOAT, 2, 3)                                                             \
    X(E2M1, 8, "e2m1", 4, FLOAT, 2, 1)                                                             \
    X(E8M0, 9, "e8m0", 8, FLOAT, 8, 0)                                                             \
    X(LUT4, 10, "lut4", 4, LUT, 0, 0)                                                              \
    X(F16I8, 11, "f16i8", 32, PAIR, 5, 17)                                                         \
    X(I1, 17, "i1", 1, INT, 0, 0)                                                                  \
    X(I2, 18, "i2", 2, INT, 0, 0)                                                                  \
    X(I3, 19, "i3", 3, INT, 0, 0)                                                                  \
    X(I4, 20, "i4", 4, INT, 0, 0)                                                                  \
    X(I5, 21, "i5", 5, INT, 0, 0)                                                                  \
    X(I6, 22, "i6", 6, INT, 0, 0)                                                                  \
    X(I7, 23, "i7", 7, INT, 0, 0)                                                                  \
    X(I8, 24, "i8", 8, INT, 0, 0)                                                                  \
    X(U1, 33, "u1", 1, UINT, 0, 0)                                                                 \
    X(U2, 34, "u2", 2, UINT, 0, 0)                                                                 \
    X(U3, 35, "u3", 3, UINT, 0, 0)                                                                 \
    X(U4, 36, "u4", 4, UINT, 0, 0)                                                                 \
    X(U5, 37, "u5", 5, UINT, 0, 0)                                                                 \
    X(U6, 38, "u6", 6, UINT, 0, 0)                                                                 \
    X(U7, 39, "u7", 7, UINT, 0, 0)                                                                 \
    X(U8, 40, "u8", 8, UINT, 0, 0)

typedef enum tw_dtype {
    TW_NONE = 0,
#define TW_ROW(name, value, text, bits, kind, exponent, mantissa) TW_##name = value,
    TW_DTYPES(TW_ROW)
#undef TW_ROW
} tw_dtype;

/* "u4", ...; "none" for TW_NONE, "?" for a value that is no dtype.  The text is static. */
TW_API const char *tw_dtype_name(tw_dtype dtype);
/* Bits of one element; 0 for TW_NONE and for a value that is no dtype. */
TW_API int32_t tw_dtype_bits(tw_dtype dtype);

/* ---- quantization: independent fields, no enum of named formats ------------------------------ */

typedef enum tw_zero_mode {
    TW_ZERO_NONE = 0, /* w = q * s */
    TW_ZERO_CODE,     /* w = (q - z) * s   zeros are u8 codes (GPTQ, AWQ) */
    TW_ZERO_VALUE,    /* w = q * s + z     zeros are values in the scales' dtype (GGUF mins, HQQ) */
} tw_zero_mode;

typedef enum tw_act_quant {
    TW_ACTQ_NONE = 0, /* x stays as it is */
    /* s = amax / 127, q = round(x * (1 / s)) within +-127, half to even; a scale per token, or per
     * token and act_group of K (32, or 256 with K-quants, is what ggml does with x) */
    TW_ACTQ_I8,
    /* torchao's int8 per token with a zero: s = (max - min) / 255 of the token and 0,
     * z = round(-min / s), q = round(x * (1 / s)) + z within 0..255; of bf16 x each operation
     * rounded to bf16 */
    TW_ACTQ_I8Z,
    /* torchao's int8 per token without one: s = amax / 127.5, rounded to bf16 for bf16 x,
     * q = round(x * (1 / s)) within -128..127 */
    TW_ACTQ_I8_FULL,
    /* From here on x is quantized and dequantized before a kernel sees it, which multiplies f32:
     * what is quantized is as below, no integer or narrow float product is used.  A row of x with a
     * NaN or infinity gives a row of NaN.
     * s is given, act_scale of the layer; q = round(x * (1 / s)) within -128..127 (torchao's
     * Int8StaticActivationInt8WeightConfig, symmetric, per tensor) */
    TW_ACTQ_I8_STATIC,
    /* s = amax / 448, rounded to x's dtype, q = e4m3(x / s), saturating, all 0 where s is 0; a
     * scale per token, or per token and act_group of K (torchao's
     * Float8DynamicActivationFloat8WeightConfig, per row and 1 x 128) */
    TW_ACTQ_E4M3,
    TW_ACTQ_E4M3_STATIC, /* s is given, act_scale of the layer; q = e4m3(x / s), saturating */
    /* MX: codes of e4m3 (MXFP8) or e2m1 (MXFP4), a scale 2^e per 32 of K (OCP Microscaling Formats
     * 1.0).  How e follows from amax (torchao's ScaleCalculationMode): alone, its RCEIL,
     * ceil(log2(amax / largest)); FLOOR is the specification's, floor(log2(amax)) - log2 of the
     * largest; CEIL the same upwards; EVEN the same of amax rounded to the code's mantissa */
    TW_ACTQ_MXFP8,
    TW_ACTQ_MXFP8_FLOOR,
    TW_ACTQ_MXFP8_CEIL,
    TW_ACTQ_MXFP8_EVEN,
    TW_ACTQ_MXFP4,
    TW_ACTQ_MXFP4_FLOOR,
    TW_ACTQ_MXFP4_CEIL,
    TW_ACTQ_MXFP4_EVEN,
    /* NVFP4: codes of e2m1, a scale of e4m3 per 16 of K: s = e4m3(amax / 6) within 2^-6..448,
     * q = e2m1(x * (1 / s)) (torchao's nvfp4_quantize) */
    TW_ACTQ_NVFP4,
    /* and a second scale t of f32, by which all others are divided: x = q * (t * s); amax of the
     * token / 2688, where torchao takes that of all tokens together */
    TW_ACTQ_NVFP4_TOKEN,
    TW_ACTQ_NVFP4_STATIC, /* the second scale is given, act_scale of the layer */
} tw_act_quant;

/* What products may be of (oneDNN's fpmath mode). */
typedef enum tw_fpmath {
    TW_FPMATH_STRICT = 0, /* what act_quant says */
    /* Or a kernel rounds x, without act_quant's codes, and each dequantized weight to bf16, half to
     * even, and adds in f32.  Which M run so depends on the device. */
    TW_FPMATH_BF16,
} tw_fpmath;

/* One scale (and zero) covers group_n x group_k weights; 0 means the whole dimension.
 *   per tensor {0,0}   per output channel {1,0}   per group of 128 {1,128}   per block {128,128}
 * The last group of a row may be short.  scale == TW_NONE: plain float weights, no scales. */
typedef struct tw_scheme {
    tw_dtype weight;
    tw_dtype scale;
    tw_zero_mode zero_mode;
    int32_t group_n, group_k;
    tw_act_quant act_quant;
    int32_t act_group; /* I8, E4M3. 0: per token; else a multiple of group_k (E4M3: any) */
    tw_fpmath fpmath;
} tw_scheme;
#define TW_SCHEME_INIT {TW_NONE, TW_NONE, TW_ZERO_NONE, 0, 0, TW_ACTQ_NONE, 0, TW_FPMATH_STRICT}

/* Parses the fields w, g, s, z, a, fpmath of a problem text ("w=u4,g=128,s=f16,z=code,a=i8"), any
 * order; w is required, docs/problem.md has the rest.  Touches nothing but *out.
 * Errors: INVALID (an argument is NULL; a field is unknown, repeated, missing or bad; fields do not
 * go together). */
TW_API tw_status tw_scheme_parse(const char *text, tw_scheme *out);

typedef enum tw_act {
    TW_ACT_NONE = 0,
    TW_ACT_RELU,
    TW_ACT_GELU,      /* x * (1 + erf(x / sqrt 2)) / 2   (Hendrycks and Gimpel, arXiv:1606.08415) */
    TW_ACT_GELU_TANH, /* the tanh approximation of the same paper */
    TW_ACT_SILU,      /* x / (1 + exp(-x))   (the same paper; Elfwing et al., arXiv:1702.03118) */
} tw_act;

/* ---- tensors: borrowed views ----------------------------------------------------------------- */

/* `data` is borrowed.  Row major unless stride says otherwise (all strides 0: contiguous).
 * Sub-byte codes are packed as DLPack does: element i of a row at bits [i*b, (i+1)*b), lowest
 * first; each row starts at a byte and its pad bits are 0.  Sub-byte tensors must be contiguous. */
typedef struct tw_tensor {
    void *data;
    tw_dtype dtype;
    int32_t ndim;
    int64_t shape[4];  /* in elements, ndim of them */
    int64_t stride[4]; /* in elements, from one index to the next */
} tw_tensor;

#ifdef __cplusplus
#define TW_SIZE_(value) static_cast<int64_t>(value)
#else
#define TW_SIZE_(value) ((int64_t)(value))
#endif

/* Initializers of contiguous views; sizes of any integer type. */
#define TW_TENSOR_1D(data_, dtype_, count_)                                                        \
    {(data_), (dtype_), 1, {TW_SIZE_(count_), 0, 0, 0}, {0, 0, 0, 0}}
#define TW_TENSOR_2D(data_, dtype_, rows_, columns_)                                               \
    {(data_), (dtype_), 2, {TW_SIZE_(rows_), TW_SIZE_(columns_), 0, 0}, {0, 0, 0, 0}}

/* ---- context [shared] ------------------------------------------------------------------------ */

typedef struct tw_context tw_context;

typedef enum tw_mode {
    TW_MODE_DEFAULT = 0,  /* the cache's choice, else an untuned guess; never measures, unless
                           * $TW_TUNE says to tune: 1 as TUNE, 2 as MAX_AUTOTUNE */
    TW_MODE_REFERENCE,    /* plain C, straight loops: the oracle */
    TW_MODE_TUNE,         /* tune on a miss, inside prepare() */
    TW_MODE_MAX_AUTOTUNE, /* as TUNE, over the whole space within the budget */
    /* A miss is the error TW_MISS naming the key; nothing compiles.  What no kernel of ours takes
     * runs a registered implementation that does, and is the error TW_UNSUPPORTED without one. */
    TW_MODE_CACHED_ONLY,
} tw_mode;

typedef enum tw_log_level {
    TW_LOG_ERROR = 1,
    TW_LOG_WARN,
    TW_LOG_INFO,
    TW_LOG_DEBUG,
    TW_LOG_TRACE
} tw_log_level;

/* Receives whole lines without a newline, one a call, of every level; the text is borrowed for the
 * call.  Called from any thread, by several at once. */
typedef struct tw_log {
    void (*write)(void *user, tw_log_level level, const char *line);
    void *user;
} tw_log;

/* alloc returns `size` bytes aligned to `align` (a power of two) or NULL; free gets the asked size.
 * Called from any thread, by several at once. */
typedef struct tw_allocator {
    void *(*alloc)(void *user, size_t size, size_t align);
    void (*free)(void *user, void *p, size_t size);
    void *user;
} tw_allocator;

/* run calls task(arg, i) once for each i in [0, count), on any threads, and waits for all.  Called
 * from any thread that runs a forward() or prepare(), by several at once. */
typedef struct tw_parallel {
    void (*run)(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count);
    void *user;
    int32_t threads; /* how many run() uses; tile decisions and keys depend on it */
} tw_parallel;

/* The entry of an OpenMP runtime that starts a team: GNU's libgomp has it, and LLVM's and Intel's
 * for its sake.  Each thread of a team calls function(data); 0 threads: as many as the caller set.
 */
typedef void (*tw_gomp_parallel)(void (*function)(void *data), void *data, unsigned threads,
                                 unsigned flags);

/* Fills *out for tw_options.parallel with a parallel-for over the host's own OpenMP, which is given
 * by its GOMP_parallel: kernels then share the threads of the host's loops, where two pools would
 * spin for each other's cores.  threads is tw_parallel's; a team is as large as the calling
 * thread's omp_set_num_threads() says.
 * Errors: INVALID (gomp_parallel or out is NULL, threads below 1).
 * Source: the interface that GCC's code calls, libgomp's manual, "Implementing PARALLEL
 * construct". */
TW_API tw_status tw_parallel_openmp(tw_gomp_parallel gomp_parallel, int32_t threads,
                                    tw_parallel *out);

typedef struct tw_options {
    size_t struct_size;
    /* NULL: $TW_CACHE, else $XDG_CACHE_HOME/tilewright/cache.db; "": no file */
    const char *cache_path;
    const char *device; /* NULL: "cpu"; "cpu:avx2" and the like force a lower target */
    tw_mode mode;
    double tune_budget_s;   /* seconds per prepare() call in the tuning modes, up to 3600000; 0: 10.
                             * An M for which its share of them is too short to compare anything
                             * runs the guess, after a warning; the next prepare() goes on */
    int32_t threads;        /* up to 4096; 0: $TW_THREADS, else every CPU this process may run on;
                             * ignored with a parallel hook */
    tw_parallel parallel;   /* zeroed: an own pthreadpool, which the first prepare() or the first
                             * forward() that is large enough starts */
    tw_log log;             /* zeroed: warnings and errors to stderr, or as TW_DEBUG says */
    tw_allocator allocator; /* zeroed: the C library's */
    /* A cache that is only read, where cache_path's file has nothing; it is never written, so
     * whoever installs it replaces the whole file.  NULL: $TW_CACHE_SYSTEM, else
     * /usr/share/tilewright/cache.db where there is one; "": none */
    const char *cache_system_path;
} tw_options;
#define TW_OPTIONS_INIT                                                                            \
    {sizeof(tw_options), NULL, NULL, TW_MODE_DEFAULT, 0.0, 0, {NULL, NULL, 0}, {NULL, NULL},       \
     {NULL, NULL, NULL}, NULL}

/* options may be NULL for defaults; texts are copied, hooks and their `user` must outlive the
 * context.  A cache that cannot be used costs one warning, never the context.  *out is the
 * caller's, for tw_context_destroy.  Where the CPU has AMX and device names no other target, Linux
 * is asked to let the process use it: alternate signal stacks must hold its 8 KiB more from then on
 * (sigaltstack: ENOMEM), and one set before that does not costs AMX, with a warning.
 * Errors: INVALID (out is NULL; an option breaks its contract, or an environment variable that is a
 * number its range, which `tilewright list options` shows), UNSUPPORTED (another kind of device, or
 * a target that this CPU cannot run), MEMORY. */
TW_API tw_status tw_context_create(const tw_options *options, tw_context **out);
/* All linears of the context must be destroyed first, and no other thread may use it any more.
 * With linears left it logs an error and keeps the context, for another call.  NULL is allowed. */
TW_API void tw_context_destroy(tw_context *context);

typedef struct tw_device_info {
    size_t struct_size;
    char name[64];   /* "AMD EPYC 9R45", as the machine calls itself */
    char target[32]; /* "avx512vnni": the instruction set that kernels are generated for */
    int32_t threads; /* that kernels run on */
    int64_t l1_bytes, l2_bytes, l3_bytes; /* data caches as one core sees them; 0 where unknown */
} tw_device_info;
#define TW_DEVICE_INFO_INIT {sizeof(tw_device_info), {0}, {0}, 0, 0, 0, 0}

/* Describes the device that the context generates for, in as much of *out as its struct_size
 * covers.
 * Errors: INVALID (an argument is NULL, or struct_size was not set). */
TW_API tw_status tw_context_device(const tw_context *context, tw_device_info *out);

/* What making plans has taken since the context was created: a warm process shows compiles 0. */
typedef struct tw_stats {
    size_t struct_size;
    int64_t guesses;                    /* plans that run one, of which nothing was measured */
    int64_t tunings;                    /* runs of the tuner, those too that fell short */
    int64_t choice_hits, choice_misses; /* decisions looked for in the cache */
    int64_t binary_hits, compiles;      /* machine code from the cache; generated */
    int64_t loads;                      /* kernels mapped, however many layers share them */
    int64_t references;                 /* plans that run the reference */
    int32_t compiler_opened;            /* 1: this process has opened the compiler (LLVM) */
} tw_stats;
#define TW_STATS_INIT {sizeof(tw_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* Reads the counters, into as much of *out as its struct_size covers; each is exact, but other
 * threads may count between two of them.
 * Errors: INVALID (an argument is NULL, or struct_size was not set). */
TW_API tw_status tw_context_stats(const tw_context *context, tw_stats *out);

/* ---- linear layer [shared] ------------------------------------------------------------------- */

typedef struct tw_linear tw_linear;

typedef struct tw_linear_desc {
    size_t struct_size;
    int64_t N, K;  /* output and input features, from 1 to 2^28 */
    tw_dtype x, y; /* f32, f16 or bf16; TW_NONE: f32, and y as x */
    tw_scheme scheme;
    tw_act act;
    /* The 16 values, finite, that the codes of w=lut4 stand for; NULL for other weights. */
    const float *lut;
    /* K numbers, each of 0..K-1 once: column k of the weights multiplies column order[k] of x, as
     * GPTQ's activation order has it.  NULL: order[k] is k. */
    const int32_t *order;
    /* The scale of a=i8s, e4m3s and nvfp4s, from calibration (quant.h has observers' formulas):
     * positive and finite, as its reciprocal; 0 for all others. */
    float act_scale;
} tw_linear_desc;
#define TW_LINEAR_DESC_INIT                                                                        \
    {sizeof(tw_linear_desc), 0, 0, TW_NONE, TW_NONE, TW_SCHEME_INIT, TW_ACT_NONE, NULL, NULL, 0.0f}

/* Creates a layer from canonical tensors, which are copied, as desc's arrays are: the caller may
 * free them on return.
 *   weight  [N,K] of scheme.weight
 *   scales  [ceil(N/group_n), ceil(K/group_k)] of scheme.scale (NULL if none)
 *   zeros   as scales, u8 or the scales' dtype (NULL if none)
 *   bias    [N] f32, f16 or bf16 (may be NULL)
 * Tensors of whole bytes may have any positive strides (a transposed view, say).  tw_zero_mode has
 * the formulas.  *out is the caller's, for tw_linear_destroy, and belongs to the context, which
 * must outlive it.
 * Errors: INVALID names the tensor (missing, not the scheme's, dtype, shape, strides, alignment,
 * pad bits), or the field of desc; NaN or infinite scales and value zeros are refused with their
 * index, zero scales are legal, and floats that are no scales (plain weights, bias) may be
 * anything.  MEMORY. */
TW_API tw_status tw_linear_create(tw_context *context, const tw_linear_desc *desc,
                                  const tw_tensor *weight, const tw_tensor *scales,
                                  const tw_tensor *zeros, const tw_tensor *bias, tw_linear **out);

/* Quantizes float weights [N,K] (f32, f16 or bf16, any positive strides) by desc->scheme and
 * creates the layer; bias and *out as tw_linear_create.  With min, max and amax = max |w| of each
 * group, and [qmin, qmax] the range of the weight dtype:
 *   z=none   i: s = amax / ((qmax - qmin) / 2); u: s = amax / qmax; float codes: s = amax / qmax;
 *            q = round(w / s)                                           (torchao's symmetric)
 *   z=code   s = (max - min) / (qmax - qmin) with min <= 0 <= max, z = -round(min / s),
 *            q = round(w / s) + z; unsigned integers only               (torchao's asymmetric)
 *   z=value  s = (max - min) / (qmax - qmin), z = min - qmin * s, q = round((w - z) / s);
 *            integers only                                              (ggml's Q4_1)
 *   plain    a conversion
 * All in f32, half to even, codes clamped; s is at least 2^-126; s and z are rounded to their dtype
 * before they are used, and integers take w * (1 / s) for w / s where there is no value zero.  All
 * codes are 0 where s becomes 0, and with w=i1,z=none, whose codes are 0 and -1.
 * Errors: INVALID names the tensor and index of a weight that is NaN, infinite, negative with
 * unsigned codes and z=none, or too large for the dtype it becomes, the group whose scale or zero
 * is; otherwise as tw_linear_create.  UNSUPPORTED: w=lut4, z=code with signed weights (zeros are u8
 * codes, which cannot centre them), z=value with float codes.  MEMORY.
 * Source: min-max (affine) quantization, Jacob et al., arXiv:1712.05877. */
TW_API tw_status tw_linear_create_from_float(tw_context *context, const tw_linear_desc *desc,
                                             const tw_tensor *weight, const tw_tensor *bias,
                                             tw_linear **out);
/* No other thread may use the linear any more: no forward may be running.  NULL is allowed. */
TW_API void tw_linear_destroy(tw_linear *linear);

/* Makes everything ready that forward() needs for `count` values of M (each at least 1): kernels,
 * and scratch for max_concurrent (0: 1; at most 1024) simultaneous forwards.  Scratch is the
 * context's: count the forwards of all its linears that may run at once; one more still works, but
 * allocates.  Kernels are shared by linears of the same shape.  The tuning modes tune here, within
 * the context's budget for the whole call.  Where no kernel takes the problem the reference is made
 * ready, with one warning a linear.
 * Errors: INVALID; MEMORY; VERIFY (tuning found no kernel that agrees with the reference, which
 * this linear then runs for these M, with one warning); COMPILE; in CACHED_ONLY MISS names the key
 * that the cache has not, UNSUPPORTED says why no kernel takes the problem, and FORMAT is cached
 * machine code that cannot be loaded; INTERNAL. */
TW_API tw_status tw_linear_prepare(tw_linear *linear, const int64_t *M, int32_t count,
                                   int32_t max_concurrent);

/* y = act(x * w^T + bias).  x [M,K] of desc.x and y [M,N] of desc.y may be row-strided (stride[1]
 * == 1); M may be 0.  y may not overlap x, but rows of both may lie side by side in one buffer
 * (equal strides).  After prepare() it takes no lock, allocates nothing and compiles nothing (the
 * parallel-for's own lock apart); an M that was not prepared is prepared by guess on first use, and
 * never tuned.  Kernels take up to 80 KiB of stack, of a parallel-for's threads as well.
 * docs/numerics.md says how exact y is.
 * Errors: INVALID names the tensor; MEMORY (more forwards at once than were prepared for); on first
 * use what prepare() fails with, VERIFY apart; whatever a registered run() returns. */
TW_API tw_status tw_linear_forward(tw_linear *linear, const tw_tensor *x, const tw_tensor *y);

/* Several layers of the same x, as q, k and v are, or gate and up: y[i] is what
 * tw_linear_forward(linears[i], x, &y[i]) gives, in every bit.  A matrix x is quantized once for
 * all of them that quantize it alike, and their work is shared out to the threads together, which
 * is what small layers gain by; what is not alike runs one after another.
 *   linears  `count` of them, at least 1, of one context and one K
 *   y        `count` tensors, none of which overlaps x or another
 * Errors: as tw_linear_forward, whose sentence is preceded by the layer's index; INVALID too where
 * linears are of several contexts.  What comes first in linears may have been written. */
TW_API tw_status tw_linear_forward_group(tw_linear *const *linears, int32_t count,
                                         const tw_tensor *x, const tw_tensor *y);

/* Recovers the canonical tensors, bit for bit as given to create().  Each pointer may be NULL.  Its
 * dtype and shape are filled in (TW_NONE: the scheme has no such tensor); its data, unless NULL,
 * receives the contiguous tensor, so a first call with NULL data tells how much to allocate: rows
 * of ceil(columns * tw_dtype_bits / 8) bytes.
 * Errors: INVALID (linear is NULL; data is not aligned to its element). */
TW_API tw_status tw_linear_weights(const tw_linear *linear, tw_tensor *weight, tw_tensor *scales,
                                   tw_tensor *zeros);
/* The layer's copies of tw_linear_desc's arrays, borrowed until it is destroyed; NULL where it has
 * none, or linear is NULL. */
TW_API const float *tw_linear_lut(const tw_linear *linear);
TW_API const int32_t *tw_linear_order(const tw_linear *linear);
/* The layer's static scale of x, 0 where it has none, or linear is NULL. */
TW_API float tw_linear_act_scale(const tw_linear *linear);

/* Rows [n0, n1) and columns [k0, k1) of canonical tensors of an [N,K] matrix, as if the floats had
 * been cut before they were quantized.  `in` and `out` hold weight, scales, zeros; scales and zeros
 * NULL where the scheme has none.  Inputs are contiguous.  Of each output dtype and shape are
 * filled in; its data, unless NULL, receives the contiguous tensor, so a first call with NULL data
 * tells how much to allocate, as in tw_linear_weights.  A lut and an act_scale stay as they are;
 * with an order the columns are the weights' own.  Where x is quantized, a part with fewer columns
 * has scales of its own for it.
 * Errors: INVALID names the tensor, or the cut: columns not at a group's boundary, rows within a
 * block of them that shares its scales (all of them with scales per tensor), an empty or impossible
 * range. */
typedef struct tw_canonical_views {
    tw_tensor *weight, *scales, *zeros;
} tw_canonical_views;
TW_API tw_status tw_slice(const tw_scheme *scheme, int64_t N, int64_t K,
                          const tw_canonical_views *in, int64_t n0, int64_t n1, int64_t k0,
                          int64_t k1, const tw_canonical_views *out);

/* The layer as it is packed for its context's target, for a file or a message: weights in their
 * layout, description, bias, lut and order, under a magic number, versions and a SHA-256.  blob
 * NULL: *size receives its bytes; else *size says how much room there is, and receives how much was
 * used.  Packed forms are derived: keep canonical tensors as well.
 * Errors: INVALID (an argument is NULL, too little room). */
TW_API tw_status tw_linear_pack(const tw_linear *linear, void *blob, size_t *size);
/* The layer of tw_linear_pack's blob, which is copied, and may lie anywhere: nothing is packed
 * anew.  *out as tw_linear_create.
 * Errors: INVALID (an argument is NULL), FORMAT (no blob, cut short, damaged), UNSUPPORTED (of
 * another version, layout or target; the sentence names both), MEMORY. */
TW_API tw_status tw_linear_create_packed(tw_context *context, const void *blob, size_t size,
                                         tw_linear **out);

typedef struct tw_plan_info {
    size_t struct_size;
    char kernel[64];  /* "cpu.int_gemm"; the name of a registered implementation; "reference" */
    char config[128]; /* "mm4 mn64 bm128 bn256" */
    char origin[16];  /* guess, tuned, cache, registered, reference */
    double median_ns; /* as tuned; 0 when never measured */
} tw_plan_info;
#define TW_PLAN_INFO_INIT {sizeof(tw_plan_info), {0}, {0}, {0}, 0.0}

/* What forward() runs for this M (at least 1); makes the plan, as forward() would, if there is none
 * yet.  Fills as much of *out as its struct_size covers.
 * Errors: INVALID (an argument is NULL, M below 1, struct_size was not set); on first use what
 * prepare() fails with, VERIFY apart. */
TW_API tw_status tw_linear_plan(tw_linear *linear, int64_t M, tw_plan_info *out);

typedef enum tw_dump {
    TW_DUMP_KEY = 1, /* the decision's key, and the machine code's: a line each */
    TW_DUMP_IR,      /* LLVM IR */
    TW_DUMP_ASM,
    TW_DUMP_OBJECT, /* the relocatable object, as the cache keeps it */
    TW_DUMP_TRACE,  /* the generator's own vocabulary; needs no compiler */
    TW_DUMP_EXPLAIN /* what runs, where that came from, and why each other kernel declined */
} tw_dump;

/* Copies at most `size` bytes of the dump for this M (at least 1) into buf (text ends with a NUL
 * when there is room) and sets *needed to the whole length in bytes, so a first call with size 0
 * tells how much to allocate; buf may then be NULL.
 * Errors: INVALID; UNSUPPORTED where there is no code (reference, registered implementations), for
 * IR and ASM in CACHED_ONLY, and without a compiler; COMPILE; MEMORY; on first use what prepare()
 * fails with, VERIFY apart. */
TW_API tw_status tw_linear_dump(tw_linear *linear, int64_t M, tw_dump what, char *buf, size_t size,
                                size_t *needed);

/* ---- extension: your own implementation of a linear layer [shared] --------------------------- */

/* One forward: x [M,K], y [M,N] to be written, the others as tw_linear_create has them.  Everything
 * is borrowed for the call; strides of x and y are filled in.  The canonical tensors are unpacked
 * once a linear and then kept. */
typedef struct tw_linear_call {
    size_t struct_size;
    int64_t M, N, K;
    const tw_scheme *scheme;
    const tw_tensor *x, *weight, *scales, *zeros, *bias; /* canonical; the last three may be NULL */
    const tw_tensor *y;
    tw_act act;
    const float *lut; /* of w=lut4, else NULL; x's columns are in the weights' order already */
    float act_scale;  /* of a static scheme, else 0; x is as forward() got it, not quantized */
} tw_linear_call;

typedef struct tw_linear_impl {
    size_t struct_size;
    const char *name; /* unique within the context, at most 63 bytes; copied */
    uint32_t version;
    /* The highest that accepts comes first, the earlier among equals.
     *   above 0  goes before the built-in kernels, without measuring
     *   0        joins the tuner: prepare() in the tuning modes times it beside the tuned kernel,
     *            and it runs where it is faster and agrees with the reference.  That is remembered
     *            under its name and version, and holds in the other modes, which measure nothing.
     *            What its first run sets up is not held against it
     *   below    is asked where no built-in kernel takes the problem, as 0 is then
     * Nothing registered is asked in TW_MODE_REFERENCE. */
    int32_t priority;
    /* Nonzero: takes this problem ("M=16,N=...", M being the bucket's size) on this target
     * ("avx2").  The texts are borrowed for the call.  Called when a plan is made, on any thread,
     * possibly several times, and by several at once. */
    int (*condition)(void *user, const char *problem, const char *target);
    /* Called by forward() on its caller's thread, for several forwards at once; with priority 0 by
     * prepare(), too, with generated tensors.  What it returns is what forward() returns. */
    tw_status (*run)(void *user, const tw_linear_call *call);
    void *user; /* must live until unregistering returned OK, or the context is gone */
} tw_linear_impl;

/* impl is copied; what the context keeps of it, some 150 bytes, stays until the context is gone, so
 * that registering is for set-up, not for every call.  Takes effect at the next forward() or
 * prepare() of each linear, existing ones included (which may then take a lock, once).
 * Errors: INVALID (an argument is NULL, struct_size was not set, the name is missing, too long or
 * taken - also by one that is still on its way out - or a function is missing), MEMORY. */
TW_API tw_status tw_register_linear(tw_context *context, const tw_linear_impl *impl);
/* From this call on no forward and no prepare begins to run the implementation: each linear goes on
 * with what would run without it.  OK: nothing calls it any more, and what it needs may be freed.
 * BUSY: calls that began before (this one may come from inside one of them) still run it; it is on
 * its way out, its name stays taken, and calling again once they have returned gives OK, however
 * busy the linears are.
 * Errors: INVALID (an argument is NULL, or nothing of this name is registered), BUSY. */
TW_API tw_status tw_unregister_linear(tw_context *context, const char *name);

#ifdef __cplusplus
}
#endif
#endif
