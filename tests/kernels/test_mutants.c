/* Kernels that are wrong in one place must be caught by the comparison that passes the right ones.
 *   views       mutants of the data and the call: what a wrong kernel would have read or left out,
 *               another nibble, no last column of K, ...; every one must be caught
 *   operations  mutants of the program: one operation of the recorded vocabulary altered, in turn;
 *               some are not wrong, so all but a few must be caught
 * --survivors: prints the altered operations that nothing noticed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/random.h"
#include "tests/kernels/run.h"

static bool print_survivors;

/* The guessed config of the last template that takes the problem: the most special one. */
static void compile_guess(compiled *c, const tw_problem *p, tw_isa isa, int64_t M, runner how) {
    tw_target target = target_of(isa);
    tw_problem bucket = *p;
    tw_config config;
    const tw_template *tmpl = NULL;
    for (int i = 0; tw_template_row(i); i++)
        if (!tw_template_row(i)->reject_problem(&target, p)) tmpl = tw_template_row(i);
    if (!tmpl) fail_msg("no template takes the problem");
    bucket.M = tw_bucket_rows(tw_bucket_index(M));
    tmpl->guess(&target, &bucket, &config);
    if (compiled_init(c, tmpl, p, &config, &target, how) != TW_OK)
        fail_msg("%s", tw_error_message());
}

static void compile_forced(compiled *c, const tw_problem *p, tw_isa isa, const char *text) {
    const char *kernel = isa != TW_ISA_avx512amx ? "cpu.int_gemm"
                         : p->scheme.fpmath      ? "cpu.amx_bf16"
                                                 : "cpu.amx_gemm";
    tw_target target = target_of(isa);
    tw_config config;
    if (tw_config_parse(text, &config) != TW_OK ||
        compiled_init(c, tw_template_find(kernel), p, &config, &target, RUN_MACHINE) != TW_OK)
        fail_msg("%s: %s", text, tw_error_message());
}

/* ---- views ---- */

typedef struct mutant {
    layer fed; /* what the kernel gets */
    run_options options;
    tw_problem compiled_for;
} mutant;

static void *code_row(layer *l, int64_t n) {
    size_t bytes = tw_dtype_row_bytes(l->problem.scheme.weight, l->problem.K);
    return (char *)l->weight + (size_t)n * bytes;
}

/* Where a scale is 0 no code matters. */
static bool matters(const layer *l, int64_t n, int64_t k) {
    const tw_problem *p = &l->problem;
    int64_t row = n / tw_group_n(&p->scheme, p->N);
    int64_t i = row * tw_groups(&p->scheme, p->K) + k / tw_group_k(&p->scheme, p->K);
    return tw_float_get(l->scales, p->scheme.scale, i) != 0;
}

/* The first two codes of a row, `apart` columns from each other, that are not the same. */
static void swap_codes(layer *l, int64_t n, int64_t apart) {
    tw_dtype d = l->problem.scheme.weight;
    char *row = code_row(l, n);
    for (int64_t k = 0; k + apart < l->problem.K; k++) {
        int32_t a = tw_code_get(row, d, k), b = tw_code_get(row, d, k + apart);
        if (a == b || !matters(l, n, k)) continue;
        tw_code_set(row, d, k, b);
        tw_code_set(row, d, k + apart, a);
        return;
    }
}

/* The two nibbles of a byte hold k and k + 4, in panel64 as in most packings. */
static void swapped_nibble(mutant *m) { swap_codes(&m->fed, m->fed.problem.N - 1, 4); }
static void swapped_neighbours(mutant *m) { swap_codes(&m->fed, 0, 1); }
static void swapped_rows(mutant *m) {
    size_t bytes = tw_dtype_row_bytes(m->fed.problem.scheme.weight, m->fed.problem.K);
    memcpy(code_row(&m->fed, 0), code_row(&m->fed, 1), bytes);
}

static void flipped_bit(mutant *m) {
    tw_dtype d = m->fed.problem.scheme.weight;
    char *row = code_row(&m->fed, 1);
    int64_t k = m->fed.problem.K - 1;
    while (!matters(&m->fed, 1, k)) k--;
    int32_t code = tw_code_get(row, d, k);
    tw_code_set(row, d, k, code == tw_dtype_max(d) ? code - 1 : code + 1);
}

static void clear_column(layer *l, int64_t k) {
    for (int64_t m = 0; m < l->problem.M; m++)
        tw_float_set(l->x, l->problem.x, m * l->problem.K + k, 0);
}
static void dropped_k_tail(mutant *m) { clear_column(&m->fed, m->fed.problem.K - 1); }
static void dropped_column(mutant *m) { clear_column(&m->fed, m->fed.problem.K / 3); }
static void dropped_first(mutant *m) { clear_column(&m->fed, 0); }
static void lost_m_tail(mutant *m) { m->options.lost_rows = 1; }
static void lost_n_tail(mutant *m) { m->options.lost_columns = m->fed.problem.N % 64; }

static void set_scale(layer *l, int64_t i, float v) {
    tw_float_set(l->scales, l->problem.scheme.scale, i, v);
}
static float get_scale(const layer *l, int64_t i) {
    return tw_float_get(l->scales, l->problem.scheme.scale, i);
}
static void missing_scale(mutant *m) { set_scale(&m->fed, layer_scales(&m->fed) - 1, 1); }
static void scale_of_neighbour(mutant *m) {
    int64_t i = 0;
    while (get_scale(&m->fed, i) == get_scale(&m->fed, i + 1)) i++;
    set_scale(&m->fed, i, get_scale(&m->fed, i + 1));
}
static void scale_off_by_an_ulp(mutant *m) {
    int64_t i = 0;
    while (get_scale(&m->fed, i) == 0) i++;
    /* of f16 */
    set_scale(&m->fed, i, get_scale(&m->fed, i) * (1 + 0x1p-10f));
}

/* What shares a factor in row 0 gets that of the next 256 columns. */
static void use_next_factor(const mutant *m, tw_pair *pairs) {
    int32_t some = TW_FACTOR_K / m->fed.problem.scheme.group_k;
    for (int32_t j = 0; j < some; j++) pairs[j].factor = pairs[some].factor;
}
static void factor_of_neighbour(mutant *m) { use_next_factor(m, m->fed.scales); }
static void zero_factor_of_neighbour(mutant *m) { use_next_factor(m, m->fed.zeros); }

static void wrong_zero(mutant *m) {
    int64_t i = layer_scales(&m->fed) - 1;
    while (get_scale(&m->fed, i) == 0) i--;
    ((uint8_t *)m->fed.zeros)[i] ^= 1;
}
static void zero_of_neighbour(mutant *m) {
    uint8_t *zeros = m->fed.zeros;
    int64_t i = 0;
    while (zeros[i] == zeros[i + 1] || get_scale(&m->fed, i) == 0) i++;
    zeros[i] = zeros[i + 1];
}
static void forgotten_zeros(mutant *m) { memset(m->fed.zeros, 0, (size_t)layer_scales(&m->fed)); }
static void value_zero_forgotten(mutant *m) {
    int64_t i = layer_scales(&m->fed) - 1;
    tw_float_set(m->fed.zeros, m->fed.problem.scheme.scale, i, 0);
}

static void missing_bias(mutant *m) {
    memset(m->fed.bias_f32, 0, (size_t)m->fed.problem.N * sizeof(float));
}
static void bias_of_neighbour(mutant *m) { m->fed.bias_f32[1] = m->fed.bias_f32[2]; }

static void other_gelu(mutant *m) { m->compiled_for.act = TW_ACT_GELU_TANH; }
static void no_activation(mutant *m) { m->compiled_for.act = TW_ACT_NONE; }
static void quantizes_x(mutant *m) { m->compiled_for.scheme.act_quant = TW_ACTQ_I8; }
static void quantizes_tokens(mutant *m) { m->compiled_for.scheme.act_group = 0; }
static void asymmetric_x(mutant *m) { m->compiled_for.scheme.act_quant = TW_ACTQ_I8Z; }

#define INT_CODE "M=5,N=70,K=100,w=u4,g=32,s=f16,z=code,a=i8,bias=f16"
#define INT_GROUP "M=5,N=70,K=100,x=bf16,w=i5,g=32,s=f16,a=i8g32,y=f16,act=silu"
#define INT_VALUE "M=5,N=70,K=100,w=u4,g=32,s=f16,z=value,a=i8g32"
#define INT_PAIRS "M=5,N=70,K=600,w=u4,g=32,s=f16i8,z=value,a=i8g256"
#define INT_LATE "M=5,N=70,K=768,w=u4,g=32,s=f16i8,z=value,a=i8g256"
#define INT_LATE_6 "M=5,N=70,K=768,w=i6,g=16,s=f16i8,a=i8g256"
#define DQ_PAIRS "M=5,N=70,K=600,w=u3,g=16,s=f16i8,z=value"
#define DQ_CODE "M=5,N=70,K=100,w=u4,g=16,s=f16,z=code,bias=f32,act=gelu"
#define DQ_WIDE "M=2,N=64,K=4096,w=u4,g=128,s=f16,z=code"
#define INT_WIDE "M=2,N=64,K=4096,w=i8,g=128,s=f16,a=i8"
#define DQ_U3 "M=5,N=70,K=100,x=f16,w=u3,g=64,s=bf16,z=code,y=bf16"

static const struct {
    const char *name, *problem;
    void (*alter)(mutant *m);
} views[] = {
    {"swapped nibble", INT_CODE, swapped_nibble},
    {"swapped nibble", DQ_CODE, swapped_nibble},
    {"swapped nibble", DQ_WIDE, swapped_nibble},
    {"swapped neighbours", INT_GROUP, swapped_neighbours},
    {"swapped neighbours", DQ_U3, swapped_neighbours},
    {"a row of weights twice", INT_VALUE, swapped_rows},
    {"a code off by one", INT_CODE, flipped_bit},
    {"a code off by one", DQ_WIDE, flipped_bit},
    {"a code off by one", INT_WIDE, flipped_bit},
    {"dropped K tail", INT_CODE, dropped_k_tail},
    {"dropped K tail", DQ_CODE, dropped_k_tail},
    {"dropped K tail", INT_WIDE, dropped_k_tail},
    {"one of 4096 columns dropped", DQ_WIDE, dropped_column},
    {"one of 4096 columns dropped", INT_WIDE, dropped_column},
    {"first column dropped", INT_GROUP, dropped_first},
    {"lost M tail", INT_CODE, lost_m_tail},
    {"lost M tail", DQ_CODE, lost_m_tail},
    {"lost N tail", INT_GROUP, lost_n_tail},
    {"lost N tail", DQ_U3, lost_n_tail},
    {"missing scale", INT_CODE, missing_scale},
    {"missing scale", DQ_CODE, missing_scale},
    {"scale of the neighbouring group", INT_VALUE, scale_of_neighbour},
    {"scale of the neighbouring group", INT_PAIRS, scale_of_neighbour},
    {"scale of the neighbouring group", INT_LATE, scale_of_neighbour},
    {"scale of the neighbouring group", INT_LATE_6, scale_of_neighbour},
    {"missing scale", DQ_PAIRS, missing_scale},
    {"factor of the next 256", INT_PAIRS, factor_of_neighbour},
    {"factor of the next 256", INT_LATE, factor_of_neighbour},
    {"factor of the next 256", INT_LATE_6, factor_of_neighbour},
    {"factor of the next 256", DQ_PAIRS, factor_of_neighbour},
    {"factor of zeros of the next 256", INT_PAIRS, zero_factor_of_neighbour},
    {"factor of zeros of the next 256", DQ_PAIRS, zero_factor_of_neighbour},
    {"factor of zeros of the next 256", INT_LATE, zero_factor_of_neighbour},
    {"forgotten value zero", INT_PAIRS, value_zero_forgotten},
    {"forgotten value zero", INT_LATE, value_zero_forgotten},
    {"scale of the neighbouring group", DQ_WIDE, scale_of_neighbour},
    {"scale off by its last place", INT_WIDE, scale_off_by_an_ulp},
    {"scale off by its last place", DQ_WIDE, scale_off_by_an_ulp},
    {"wrong zero", INT_CODE, wrong_zero},
    {"wrong zero", DQ_WIDE, wrong_zero},
    {"zero of the neighbouring group", DQ_CODE, zero_of_neighbour},
    {"zeros forgotten", INT_CODE, forgotten_zeros},
    {"value zero forgotten", INT_VALUE, value_zero_forgotten},
    {"missing bias", INT_CODE, missing_bias},
    {"bias of the neighbouring column", DQ_CODE, bias_of_neighbour},
    {"gelu by tanh", DQ_CODE, other_gelu},
    {"no activation function", INT_GROUP, no_activation},
    {"x quantized", DQ_U3, quantizes_x},
    {"x quantized", DQ_CODE, quantizes_x},
    {"x quantized per token", INT_VALUE, quantizes_tokens},
    {"x quantized with a zero point", INT_CODE, asymmetric_x},
};

static void test_views(void **state) {
    (void)state;
    int caught = 0, tried = 0;
    for (size_t i = 0; i < TW_COUNT(views); i++) {
        tw_problem p = problem_of(views[i].problem);
        layer truth;
        /* Row 0 is of the first kind: no row of zeros, nothing that drowns the rest. */
        layer_init(&truth, &p, LAYER_RANDOM, 8);
        for (int isa = 0; isa < TW_ISA_COUNT; isa++) {
            runner how = tw_cpu_can_run((tw_isa)isa) ? RUN_NATIVE : RUN_MACHINE;
            mutant m = {.options = {.M = p.M}, .compiled_for = p};
            compiled right, wrong;
            compile_guess(&right, &p, (tw_isa)isa, p.M, how);
            if (run_layer(&right, &truth, &truth, &m.options) != TW_OK)
                fail_msg("%s: the right kernel fails: %s", views[i].problem, tw_error_message());
            compiled_free(&right);
            layer_copy(&m.fed, &truth);
            views[i].alter(&m);
            compile_guess(&wrong, &m.compiled_for, (tw_isa)isa, p.M, how);
            wrong.problem.act = p.act; /* compared as what was asked for */
            wrong.problem.scheme = p.scheme;
            tried++;
            if (run_layer(&wrong, &truth, &m.fed, &m.options) == TW_VERIFY)
                caught++;
            else
                fprintf(stderr, "not caught on %s: %s, %s\n", tw_isas[isa].name, views[i].name,
                        views[i].problem);
            compiled_free(&wrong);
            layer_free(&m.fed);
        }
        layer_free(&truth);
    }
    fprintf(stderr, "%d of %d wrong views caught\n", caught, tried);
    assert_int_equal(caught, tried);
}

/* ---- operations ---- */

static uint8_t other_compare(uint8_t sub) {
    switch ((tw_cmpop)sub) {
    case TW_IR_SLT: return TW_IR_SGT;
    case TW_IR_SGT: return TW_IR_SLT;
    case TW_IR_OLT: return TW_IR_OGT;
    case TW_IR_OGT: return TW_IR_OLT;
    case TW_IR_EQ: return TW_IR_NE;
    default: return TW_IR_EQ;
    }
}

static void swap_lanes(int64_t *lane) {
    int64_t first = lane[0];
    lane[0] = lane[1];
    lane[1] = first;
}

static void swap_arguments(machine_op *op, int i) {
    int32_t first = op->arg[i];
    op->arg[i] = op->arg[i + 1];
    op->arg[i + 1] = first;
}

/* Of the matrix unit: the other sign of the second factor, else nothing is done. */
static void alter_tiles(machine_op *op) {
    char *sign = strstr(op->name, "tdpbs");
    if (sign)
        sign[5] = sign[5] == 's' ? 'u' : 's';
    else
        op->kind = OP_PREFETCH;
}

/* Makes the operation compute something else; false: there is nothing to alter. */
static bool alter(machine *m, machine_op *op) {
    static const uint8_t other_binop[TW_BINOP_COUNT] = {
        [TW_IR_ADD] = TW_IR_SUB,   [TW_IR_SUB] = TW_IR_ADD,   [TW_IR_MUL] = TW_IR_ADD,
        [TW_IR_AND] = TW_IR_OR,    [TW_IR_OR] = TW_IR_AND,    [TW_IR_XOR] = TW_IR_AND,
        [TW_IR_SHL] = TW_IR_LSHR,  [TW_IR_LSHR] = TW_IR_SHL,  [TW_IR_ASHR] = TW_IR_SHL,
        [TW_IR_SMIN] = TW_IR_SMAX, [TW_IR_SMAX] = TW_IR_SMIN, [TW_IR_UMIN] = TW_IR_UMAX,
        [TW_IR_UMAX] = TW_IR_UMIN, [TW_IR_FADD] = TW_IR_FSUB, [TW_IR_FSUB] = TW_IR_FADD,
        [TW_IR_FMUL] = TW_IR_FADD, [TW_IR_FDIV] = TW_IR_FMUL, [TW_IR_FMIN] = TW_IR_FMAX,
        [TW_IR_FMAX] = TW_IR_FMIN};
    int lanes = op->ty.lanes ? op->ty.lanes : 1;
    int64_t *lane = m->lanes + op->lanes_at;
    switch ((machine_kind)op->kind) {
    case OP_BINARY: op->sub = other_binop[op->sub]; return true;
    case OP_CONSTANT: /* integers by one, floats by half of themselves or so */
        for (int i = 0; i < lanes; i++)
            lane[i] += op->ty.kind != TW_TY_F32 ? 1 : lane[i] ? 1 << 22 : 0x3f800000;
        return true;
    case OP_SELECT:
    case OP_BRANCH: swap_arguments(op, 1); return true;
    case OP_FMA: /* the sum so far is lost */
        op->kind = OP_BINARY;
        op->sub = TW_IR_FMUL;
        return true;
    case OP_LOAD: op->skew = op->number; return true;   /* what lies behind */
    case OP_STORE: op->kind = OP_PREFETCH; return true; /* nothing is stored */
    case OP_OFFSET: op->arg[1] = 0; return true;        /* no value: zero */
    case OP_SHUFFLE: /* each lane gets what belongs to the next */
        for (int i = 0; i + 1 < lanes; i++) swap_lanes(lane + i);
        return lanes > 1;
    case OP_INTRINSIC:
        if (op->ty.kind == TW_TY_VOID) {
            alter_tiles(op);
            return true;
        }
        if (op->sub < 2) return false;
        /* signed and unsigned, first and second; products of equals commute */
        swap_arguments(op, op->sub - 2);
        return !strstr(op->name, "pmaddw") && !strstr(op->name, "pmadd.wd") &&
               !strstr(op->name, "dpbf16");
    case OP_COMPARE: op->sub = other_compare(op->sub); return true;
    default: return false;
    }
}

/* What works by itself, not by a value. */
static bool acts(const machine_op *op) {
    bool tiles = op->kind == OP_INTRINSIC && op->ty.kind == TW_TY_VOID;
    return op->kind == OP_STORE || op->kind == OP_BRANCH || tiles;
}

/* Which values matter: those that something stored or a branch depends on.  An address that is only
 * prefetched does not. */
static char *find_live(const machine *m) {
    char *live = calloc((size_t)m->value_count + 1, 1);
    if (!live) exit(2);
    for (bool grew = true; grew;) {
        grew = false;
        for (int32_t i = m->op_count - 1; i >= 0; i--) {
            const machine_op *op = &m->ops[i];
            if (!acts(op) && (op->dst < 0 || !live[op->dst])) continue;
            int count = op->kind == OP_BRANCH ? 1 : MACHINE_ARGS;
            for (int a = 0; a < count; a++) {
                grew |= !live[op->arg[a]] && op->arg[a];
                live[op->arg[a]] = 1;
            }
            for (int64_t at = op->kind == OP_PHI ? op->number : -1; at >= 0;
                 at = m->incoming[at].next) {
                grew |= !live[m->incoming[at].value];
                live[m->incoming[at].value] = 1;
            }
        }
    }
    return live;
}

/* ---- noticing ---- */

enum { MOST_SURVIVORS = 8 }; /* per cent */
enum { JUDGES = 6, EXACT_JUDGE = 3, JUDGE_ROWS = 8, NAN_ROW = 2 };

/* Layers that between them have several kinds of row for each row of a tile; sums that are exact,
 * so that the rounding of y has one right result; where codes scale, groups whose sums of products
 * are all words, and the largest sums there are; a NaN in one row. */
typedef struct judges {
    layer layers[JUDGES], with_nan;
    int count; /* of layers */
} judges;

static void judges_init(judges *j, const tw_problem *p) {
    layer_init(&j->layers[0], p, LAYER_RANDOM, 8);
    layer_init(&j->layers[1], p, LAYER_RANDOM, 13);
    layer_init(&j->layers[2], p, LAYER_RANDOM, 15);
    layer_init(&j->layers[EXACT_JUDGE], p, p->act ? LAYER_RANDOM : LAYER_EXACT, 20);
    j->count = EXACT_JUDGE + 1;
    if (p->scheme.scale == TW_F16I8) {
        layer_init(&j->layers[j->count++], p, LAYER_PEAKS, 21);
        layer_init(&j->layers[j->count++], p, LAYER_EXTREME, 22);
    }
    layer_init(&j->with_nan, p, LAYER_RANDOM, 16);
    tw_float_set(j->with_nan.x, p->x, NAN_ROW * p->K + p->K / 2, NAN);
}

static void judges_free(judges *j) {
    for (int i = 0; i < j->count; i++) layer_free(&j->layers[i]);
    layer_free(&j->with_nan);
}

static bool notice(const judges *j, const compiled *c) {
    run_options options = {.M = j->layers[0].problem.M};
    for (int i = 0; i < j->count; i++) {
        options.M = j->layers[0].problem.M - i % 2; /* whole tiles, and the tail of one */
        options.exact = i == EXACT_JUDGE && !c->problem.act;
        if (run_layer(c, &j->layers[i], &j->layers[i], &options) != TW_OK) return true;
    }
    float y[JUDGE_ROWS * 128];
    options.y = y;
    if (run_layer(c, &j->with_nan, &j->with_nan, &options) != TW_OK) return true;
    int64_t N = c->problem.N;
    for (int64_t i = 0; i < options.M * N; i++)
        if ((i / N == NAN_ROW) != isnan(y[i])) return true;
    return false;
}

static void print_survivor(const compiled *c, int32_t at) {
    const machine_op *op = &c->machine->ops[at];
    bool packs = at < c->machine->functions[1].first_op;
    fprintf(stderr,
            "survives: %s operation %d, run %lld times: kind %d sub %d, type %d x %d, number "
            "%lld%s%s\n",
            packs ? "tw_pack_x" : "tw_matmul", at, (long long)op->runs, op->kind, op->sub,
            op->ty.kind, op->ty.lanes,
            (long long)(op->kind == OP_CONSTANT ? c->machine->lanes[op->lanes_at] : op->number),
            *op->name ? " " : "", op->name);
}

typedef struct score {
    int altered, survived;
} score;

/* Alters each operation in turn, or every `stride`th. */
static void try_operations(const judges *j, const compiled *c, int stride, score *s) {
    machine *m = c->machine;
    char *live = find_live(m);
    int64_t lanes[MACHINE_LANES];
    for (int32_t at = 0; at < m->op_count; at += stride) {
        machine_op saved = m->ops[at];
        if (!acts(&saved) && saved.dst >= 0 && !live[saved.dst]) continue;
        int64_t *lane = m->lanes + saved.lanes_at;
        size_t kept = (size_t)tw_min(MACHINE_LANES, m->lane_count - saved.lanes_at);
        memcpy(lanes, lane, kept * sizeof *lanes);
        if (alter(m, &m->ops[at])) {
            s->altered++;
            if (!notice(j, c)) {
                s->survived++;
                m->ops[at] = saved;
                memcpy(lane, lanes, kept * sizeof *lanes);
                if (print_survivors) print_survivor(c, at);
            }
        }
        m->ops[at] = saved;
        memcpy(lane, lanes, kept * sizeof *lanes);
    }
    free(live);
}

static void test_operations(void **state) {
    (void)state;
    static const struct {
        const char *problem;
        tw_isa isa;
        const char *config; /* of a kernel of AMX, else of cpu.int_gemm; NULL: the guess */
    } rows[] = {
        {"M=8,N=87,K=94,w=u4,g=32,s=f16,z=code,a=i8,bias=f16", TW_ISA_avx2, NULL},
        {"M=8,N=87,K=94,w=i5,g=32,s=f16,a=i8g32,y=bf16,act=silu", TW_ISA_avx512vnni, NULL},
        {"M=8,N=87,K=94,x=bf16,w=u8,g=16,s=f16,z=value,a=i8z,y=f16", TW_ISA_avx2, NULL},
        {"M=8,N=87,K=94,w=u2,g=64,s=f16,z=code,a=i8", TW_ISA_portable, NULL},
        {"M=8,N=87,K=300,w=u4,g=32,s=f16i8,z=value,a=i8g256", TW_ISA_avx512vnni, NULL},
        {"M=8,N=87,K=512,w=u4,g=32,s=f16i8,z=value,a=i8g256", TW_ISA_avx512vnni, NULL},
        {"M=8,N=87,K=512,w=u2,g=16,s=f16i8,z=value,a=i8g256", TW_ISA_avx2, NULL},
        {"M=8,N=87,K=512,w=i6,g=16,s=f16i8,a=i8g256", TW_ISA_avx2, NULL},
        {"M=8,N=87,K=94,w=i4,g=32,s=f16,a=i8z", TW_ISA_avx512vnni, NULL},
        {"M=8,N=87,K=94,w=u4,g=16,s=f16,z=code,bias=f32,act=gelu", TW_ISA_avx2, NULL},
        {"M=8,N=87,K=94,x=f16,w=u3,g=64,s=bf16,z=value,y=bf16", TW_ISA_avx512, NULL},
        {"M=8,N=87,K=94,x=bf16,w=i4,g=32,s=f16,y=bf16", TW_ISA_avx512bf16, NULL},
        {"M=8,N=87,K=94,x=f16,w=bf16", TW_ISA_portable, NULL},
        {"M=8,N=87,K=94,w=lut4,g=32,s=f16,bias=f16", TW_ISA_avx2, NULL},
        {"M=8,N=87,K=94,x=bf16,w=e4m3,g=channel,s=f32", TW_ISA_avx512, NULL},
        {"M=8,N=128,K=94,w=u4,g=32,s=f16,z=code,a=i8,bias=f32", TW_ISA_avx512vnni,
         "mm3 mn64 bm6 bn512 st2"},
        {"M=8,N=87,K=94,w=u4,g=32,s=f16,z=code,a=i8,bias=f16", TW_ISA_avx512vnni,
         "mm3 mn32 bm6 bn64 ua64"},
        {"M=8,N=87,K=94,w=i4,g=32,s=f16,a=i8z", TW_ISA_avx512vnni, "mm3 mn32 bm6 bn64 ua64"},
        {"M=8,N=87,K=94,w=u4,g=32,s=f16,z=value,a=i8g32", TW_ISA_avx2, "mm3 mn16 bm6 bn64 ua64"},
        {"M=8,N=87,K=512,w=i6,g=16,s=f16i8,a=i8g256", TW_ISA_avx512vnni,
         "mm3 mn32 bm6 bn64 ua256 gp1"},
        {"M=8,N=87,K=94,w=i8,g=32,s=f16,a=i8g32", TW_ISA_avx2, "mm3 mn16 bm6 bn64 ua64"},
        {"M=8,N=87,K=192,w=i8,s=f32,a=i8,bias=f32", TW_ISA_avx512amx, "mm16 mn32 bm16 bn64 ua128"},
        {"M=8,N=87,K=96,w=i4,g=32,s=f16,a=i8z", TW_ISA_avx512amx, "mm16 mn16 bm16 bn64 ua64"},
        {"M=8,N=87,K=512,w=i6,g=16,s=f16i8,a=i8g256", TW_ISA_avx512amx,
         "mm16 mn16 bm16 bn64 ua256"},
        {"M=8,N=87,K=512,w=u4,g=32,s=f16i8,z=value,a=i8g256", TW_ISA_avx512amx,
         "mm16 mn16 bm16 bn64 ua256"},
        {"M=8,N=87,K=160,w=u4,g=32,s=f16,z=value,a=i8g32,fpmath=bf16", TW_ISA_avx512amx,
         "mm16 mn32 bm16 bn64 ua96"},
        {"M=8,N=87,K=80,x=bf16,w=u4,g=16,s=f16,z=code,fpmath=bf16,y=bf16", TW_ISA_avx512amx,
         "mm16 mn16 bm16 bn64 ua80"},
        {"M=8,N=87,K=128,w=bf16,fpmath=bf16,bias=f32", TW_ISA_avx512amx,
         "mm16 mn16 bm16 bn64 ua64"},
    };
    score all = {0, 0};
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        tw_problem p = problem_of(rows[i].problem);
        judges j;
        compiled c;
        score s = {0, 0};
        judges_init(&j, &p);
        if (rows[i].config)
            compile_forced(&c, &p, rows[i].isa, rows[i].config);
        else
            compile_guess(&c, &p, rows[i].isa, p.M, RUN_MACHINE);
        assert_false(notice(&j, &c));
        c.machine->most_steps = 4 * c.machine->steps + 1000;
        if (print_survivors) fprintf(stderr, "%s\n", rows[i].problem);
        try_operations(&j, &c, 1 + c.machine->op_count / 400, &s);
        fprintf(stderr, "%s, %s: %d of %d altered operations survive\n", c.tmpl->name,
                tw_isas[rows[i].isa].name, s.survived, s.altered);
        all.altered += s.altered;
        all.survived += s.survived;
        compiled_free(&c);
        judges_free(&j);
    }
    fprintf(stderr, "%d of %d altered operations survive\n", all.survived, all.altered);
    /* What survives computes the same: clamps that no x reaches, masks over bits that are 0, sums
     * with the 0 of a first fold, steps of loops that run once, other bits of a NaN, the rounding
     * to bf16 of an x that is bf16, ties that an activation function keeps from being exact:
     * --survivors tells. */
    assert_true(all.survived * 100 <= all.altered * MOST_SURVIVORS);
}

int main(int count, char **arguments) {
    print_survivors = count > 1 && !strcmp(arguments[1], "--survivors");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
