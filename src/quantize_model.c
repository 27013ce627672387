/* A model through its plan: tensor by tensor out of the mapped files, in blocks of rows through the
 * recipe, into the writer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "src/base/alloc.h"
#include "src/base/file.h"
#include "src/base/options.h"
#include "src/base/status.h"
#include "src/check.h"
#include "src/core/dtype.h"
#include "src/quantize_plan.h"
#include "src/rows.h"

typedef struct run {
    const tw_model *model;
    const tw_quantize_options *o;
    const tw_quantize_plan *plan;
    tw_model_writer *writer;
    tw_threads *threads;
    uint64_t done; /* work */
} run;

/* ---- progress -------------------------------------------------------------------------------- */

static tw_status show(const run *r, int32_t index, double share) {
    const tw_quantize_options *o = r->o;
    double all = (double)r->plan->work;
    double work = tw_min((double)r->done + share * (double)tw_quantize_work(r->plan, index), all);
    const char *name = r->plan->tensors[index].name;
    if (o->progress && o->progress(o->user, work / all, name))
        return tw_fail(TW_CANCELLED, "cancelled at tensor '%s'; nothing was written", name);
    return TW_OK;
}

/* ---- values ---------------------------------------------------------------------------------- */

enum { CONVERTED_BYTES = 4 << 20 };

/* A tensor's rows in the recipe's dtype: the file's own memory, or converted. */
typedef struct source {
    const run *run;
    int32_t index;
    const void *plain;         /* all rows, `row` bytes each; NULL: converted */
    tw_canonical_tensor whole; /* of which, where the file keeps them in several tensors */
    int64_t K;
    size_t row;
} source;

static tw_status source_open(const run *r, int32_t index, tw_dtype x, int64_t K, source *out) {
    const tw_model_tensor *t = tw_model_tensor_at(r->model, index);
    const void *data = tw_model_data(r->model, index);
    *out = (source){.run = r, .index = index, .K = K, .row = tw_dtype_row_bytes(x, K)};
    if (!data) return tw_model_read(r->model, index, &out->whole);
    bool aligned = (uintptr_t)data % (size_t)(tw_dtype_bits(x) / 8) == 0;
    if (tw_scheme_plain(&t->scheme) && t->scheme.weight == x && aligned) out->plain = data;
    return TW_OK;
}

/* `count` rows of the file, or of what was read whole. */
static tw_status convert_rows(const source *s, int64_t first, int64_t count, char *room) {
    tw_canonical_tensor part = {0};
    const tw_canonical_tensor *from = &s->whole;
    if (!s->whole.weight) {
        TW_TRY(tw_model_read_rows(s->run->model, s->index, first, count, &part));
        from = &part;
    }
    int64_t n0 = from == &part ? 0 : first;
    if (s->row == (size_t)s->K * sizeof(float))
        for (int64_t i = 0; i < count; i++)
            tw_canonical_tensor_row(from, n0 + i, (float *)(void *)room + i * s->K);
    else /* f16 or bf16 that is not aligned */
        memcpy(room, from->weight, from->weight_bytes);
    tw_canonical_tensor_free(&part);
    return TW_OK;
}

/* Rows [first, first + count) as the recipe takes them; room is for those that are converted, a few
 * at a time, so that what they come from is not there twice. */
static tw_status source_rows(const source *s, int64_t first, int64_t count, void *room,
                             const void **out) {
    *out = s->plain ? (const char *)s->plain + first * (ptrdiff_t)s->row : room;
    if (s->plain) return TW_OK;
    int64_t few = tw_max(CONVERTED_BYTES / (int64_t)s->row, 1);
    for (int64_t i = 0, n; i < count; i += n) {
        n = tw_min(few, count - i);
        TW_TRY(convert_rows(s, first + i, n, (char *)room + (size_t)i * s->row));
        if (count > few && !s->whole.weight) tw_model_release(s->run->model, s->index);
    }
    return TW_OK;
}

/* ---- quantizing ------------------------------------------------------------------------------ */

/* Rows between two looks at the progress. */
enum { PIECE_BYTES = 8 << 20 };

typedef struct piece {
    const source *from;
    const tw_recipe *recipe;
    tw_canonical_tensor *out;
    int64_t first; /* row of the tensor that is the piece's row 0 */
} piece;

static char *behind(void *data, size_t offset) { return data ? (char *)data + offset : NULL; }

/* On any thread. */
static tw_status quantize_block(void *user, int64_t first, int64_t count) {
    const piece *p = user;
    tw_canonical_tensor *out = p->out;
    int64_t n = p->first + first;
    tw_row_offsets at = tw_rows_before(&out->scheme, out->N, out->K, n);
    float lut[TW_LUT4_SIZE];
    void *room = p->from->plain ? NULL : malloc((size_t)count * p->from->row);
    const void *x;
    if (!p->from->plain && !room)
        return tw_fail(TW_MEMORY, "out of memory for %lld rows", (long long)count);
    tw_status status = source_rows(p->from, n, count, room, &x);
    if (!status)
        status =
            tw_recipe_quantize(p->recipe, count, out->K, x, behind(out->weight, at.codes),
                               behind(out->scales, at.scales), behind(out->zeros, at.zeros), lut);
    if (!status && out->lut && !n) memcpy(out->lut, lut, sizeof lut);
    free(room);
    return status && n ? tw_fail_within(status, "rows from %lld", (long long)n) : status;
}

static tw_status quantize_rows(const run *r, int32_t index, const source *from,
                               tw_canonical_tensor *out) {
    const tw_recipe *recipe = &r->plan->decisions[index].recipe;
    int64_t apart = tw_recipe_rows(recipe, out->N);
    int64_t rows = tw_max(PIECE_BYTES / (int64_t)from->row / apart, 1) * apart;
    for (int64_t n = 0; n < out->N; n += rows) {
        piece p = {from, recipe, out, n};
        TW_TRY(show(r, index, (double)n / (double)out->N));
        TW_TRY(tw_rows_run(r->threads, tw_min(rows, out->N - n), tw_min(apart, out->N - n),
                           from->row, quantize_block, &p));
        tw_model_release(r->model, index);
    }
    return TW_OK;
}

static void *room_for(int64_t rows, tw_dtype dtype, int64_t columns, size_t *bytes) {
    *bytes = dtype ? (size_t)rows * tw_dtype_row_bytes(dtype, columns) : 0;
    void *p = *bytes ? tw_alloc(&tw_allocator_default, *bytes) : NULL;
    return p ? memset(p, 0, *bytes) : NULL;
}

static tw_status quantized(const run *r, int32_t index, tw_canonical_tensor *out) {
    const tw_planned_tensor *p = &r->plan->tensors[index];
    const tw_recipe *recipe = &r->plan->decisions[index].recipe;
    const tw_scheme *s = &recipe->scheme;
    source from;
    tw_canonical_tensor t = {.scheme = *s};
    tw_planned_fold(p, &t.N, &t.K);
    int64_t rows = tw_scale_rows(s, t.N), groups = tw_groups(s, t.K);
    t.weight = room_for(t.N, s->weight, t.K, &t.weight_bytes);
    t.scales = room_for(rows, s->scale, groups, &t.scale_bytes);
    t.zeros = room_for(rows, tw_zero_dtype(s), groups, &t.zero_bytes);
    tw_status status = TW_OK;
    if (!t.weight || !t.scales || (s->zero_mode && !t.zeros))
        status = tw_fail(TW_MEMORY, "out of memory for %zu bytes of codes", t.weight_bytes);
    if (!status && s->weight == TW_LUT4) status = tw_canonical_tensor_add_lut(&t);
    if (!status) status = source_open(r, index, recipe->x, t.K, &from);
    if (!status) {
        status = quantize_rows(r, index, &from, &t);
        tw_canonical_tensor_free(&from.whole);
    }
    if (status)
        tw_canonical_tensor_free(&t);
    else
        *out = t;
    return status;
}

static tw_status as_floats(const run *r, int32_t index, tw_canonical_tensor *out) {
    tw_canonical_tensor from, t = {.scheme = {.weight = TW_F32}};
    TW_TRY(tw_model_read(r->model, index, &from));
    t.N = from.N;
    t.K = from.K;
    t.weight = room_for(t.N, TW_F32, t.K, &t.weight_bytes);
    tw_status status =
        t.weight || !t.weight_bytes
            ? TW_OK
            : tw_fail(TW_MEMORY, "out of memory for %zu bytes of floats", t.weight_bytes);
    for (int64_t n = 0; n < t.N && !status; n++)
        tw_canonical_tensor_row(&from, n, (float *)t.weight + n * t.K);
    tw_canonical_tensor_free(&from);
    if (!status) *out = t;
    return status;
}

static tw_status write_one(const run *r, int32_t index) {
    tw_canonical_tensor t = {0};
    tw_status status = TW_INTERNAL;
    switch (r->plan->decisions[index].carriage) {
    case TW_CARRY_DATA:
        return tw_model_writer_add_data(r->writer, tw_model_data(r->model, index),
                                        (size_t)tw_model_tensor_at(r->model, index)->bytes);
    case TW_CARRY_CANONICAL: status = tw_model_read(r->model, index, &t); break;
    case TW_CARRY_FLOATS: status = as_floats(r, index, &t); break;
    case TW_CARRY_QUANTIZED: status = quantized(r, index, &t); break;
    }
    if (!status) status = tw_model_writer_add(r->writer, &t);
    tw_canonical_tensor_free(&t);
    return status;
}

static tw_status write_all(run *r, tw_form form, const tw_sink *sink) {
    TW_TRY(
        tw_model_writer_create(form, sink, r->plan->tensors, r->plan->count, r->model, &r->writer));
    for (int32_t i = 0; i < r->plan->count; i++) {
        tw_status status = show(r, i, 0);
        if (!status) {
            status = write_one(r, i);
            if (status && status != TW_CANCELLED && status != TW_IO)
                status = tw_fail_within(status, "tensor '%s'", r->plan->tensors[i].name);
        }
        if (status) {
            tw_model_writer_discard(r->writer);
            return status;
        }
        tw_model_release(r->model, i);
        r->done += tw_quantize_work(r->plan, i);
    }
    /* Whoever asked to stop while the last piece was done gets no file. */
    tw_status status = show(r, r->plan->count - 1, 0);
    if (!status) return tw_model_writer_finish(r->writer);
    tw_model_writer_discard(r->writer);
    return status;
}

/* ---- the output ------------------------------------------------------------------------------ */

static tw_status write_file(void *user, const void *bytes, size_t size) {
    return tw_file_write(user, bytes, size);
}

static tw_status to_file(run *r, tw_form form, const char *path) {
    tw_file file;
    const tw_sink sink = {write_file, &file};
    TW_TRY(tw_file_open(path, TW_FILE_REGULAR, &file));
    tw_status status = write_all(r, form, &sink);
    if (!status) return tw_file_finish(&file);
    tw_file_discard(&file);
    return status;
}

/* The source's config.json, with the quantization as it is now. */
static tw_status write_config(const run *r, const char *path) {
    char *quantization = NULL, *text = NULL;
    size_t size = 0;
    const char *config = tw_model_config(r->model, &size);
    json_t *root = config ? json_loadb(config, size, 0, NULL) : json_object();
    tw_status status = root ? tw_compressed_config(r->plan->tensors, r->plan->count, &quantization)
                            : tw_fail(TW_FORMAT, "config.json: cannot be read again");
    if (!status) {
        json_object_set_new(root, "quantization_config", json_loads(quantization, 0, NULL));
        text = json_dumps(root, JSON_INDENT(2));
        if (!text) status = tw_fail(TW_MEMORY, "out of memory for a config.json");
    }
    tw_file file;
    if (!status) status = tw_file_open(path, TW_FILE_REGULAR, &file);
    if (!status) {
        status = tw_file_write(&file, text, strlen(text));
        if (!status) status = tw_file_write(&file, "\n", 1);
        if (!status)
            status = tw_file_finish(&file);
        else
            tw_file_discard(&file);
    }
    free(text);
    free(quantization);
    json_decref(root);
    return status;
}

static tw_status failed(const char *path) {
    return tw_fail(TW_IO, "%s: %s", path, strerror(errno));
}

/* A folder that is filled under another name. */
static tw_status to_folder(run *r, tw_form form, const char *path) {
    tw_str folder = {0}, model = {0}, config = {0};
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/') size--;
    tw_str_add(&folder, "%.*s.%ld.part", (int)size, path, (long)getpid());
    tw_str_add(&model, "%s/model.safetensors", tw_str_text(&folder));
    tw_str_add(&config, "%s/config.json", tw_str_text(&folder));
    tw_status status = tw_str_ok(&config);
    bool there = !status && !mkdir(tw_str_text(&folder), 0777);
    if (!status && !there) status = failed(tw_str_text(&folder));
    if (!status) status = to_file(r, form, tw_str_text(&model));
    if (!status) status = write_config(r, tw_str_text(&config));
    /* Fails, too, where a folder with something in it has come there meanwhile. */
    if (!status && rename(tw_str_text(&folder), path)) status = failed(path);
    if (status && there) {
        unlink(tw_str_text(&model));
        unlink(tw_str_text(&config));
        rmdir(tw_str_text(&folder));
    }
    tw_str_free(&folder);
    tw_str_free(&model);
    tw_str_free(&config);
    return status;
}

static bool ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text), m = strlen(suffix);
    return n > m && !strcmp(text + n - m, suffix);
}

static tw_status form_of(const tw_quantize_options *o, const char *out, tw_form *form) {
    *form = o->form;
    if (*form == TW_FORM_BY_NAME && ends_with(out, ".gguf")) *form = TW_FORM_GGUF;
    if (*form == TW_FORM_BY_NAME && ends_with(out, ".safetensors")) *form = TW_FORM_TILEWRIGHT;
    if (tw_form_name(*form)) return TW_OK;
    if (*form != TW_FORM_BY_NAME)
        return tw_fail(TW_INVALID, "options: form: %d, is none", (int)*form);
    return tw_fail(TW_INVALID, "out: \"%s\", expected NAME.gguf or NAME.safetensors, or a form",
                   out);
}

/* What stands there must be neither what is read nor, but by the caller's wish, anything. */
static tw_status check_out(const tw_model *model, const char *out, tw_form form, bool overwrite) {
    struct stat there;
    if (form != TW_FORM_COMPRESSED) TW_TRY(tw_file_check(out, TW_FILE_REGULAR));
    bool folder = form == TW_FORM_COMPRESSED;
    if ((folder ? lstat : stat)(out, &there)) return TW_OK;
    if (tw_model_reads(model, there.st_dev, there.st_ino))
        return tw_fail(TW_INVALID, "out: \"%s\", is what is read", out);
    if (folder) return tw_fail(TW_IO, "%s: is there already, and a folder is not replaced", out);
    return overwrite ? TW_OK : tw_fail(TW_IO, "%s: is there already", out);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static uint64_t planned_bytes(const tw_planned_tensor *p, const tw_model_tensor *t) {
    int64_t N, K;
    tw_planned_fold(p, &N, &K);
    if (p->type || !N) return t->bytes;
    tw_problem problem = {.N = N, .K = K, .scheme = p->scheme};
    return (uint64_t)tw_problem_weight_bytes(&problem);
}

static void report(const run *r) {
    for (int32_t i = 0; r->o->report && i < r->plan->count; i++) {
        const tw_model_tensor *t = tw_model_tensor_at(r->model, i);
        const tw_planned_tensor *p = &r->plan->tensors[i];
        const tw_decision *d = &r->plan->decisions[i];
        tw_quantize_row row = {.struct_size = sizeof row,
                               .tensor = t->name,
                               .ndim = t->ndim,
                               .is_linear = t->is_linear,
                               .outcome = d->carriage != TW_CARRY_QUANTIZED ? TW_OUTCOME_KEPT
                                          : d->short_group                  ? TW_OUTCOME_SHORT_GROUP
                                                                            : TW_OUTCOME_QUANTIZED,
                               .from = t->type,
                               .to = d->to,
                               .recipe = d->recipe_text,
                               .rule = d->rule,
                               .reason = d->reason,
                               .source_bytes = t->bytes,
                               .bytes = planned_bytes(p, t)};
        memcpy(row.shape, t->shape, sizeof row.shape);
        r->o->report(r->o->user, &row);
    }
}

static tw_status quantize(const char *out, tw_form form, run *r, tw_quantize_plan *plan) {
    TW_TRY(tw_quantize_plan_make(r->model, form, r->o, plan));
    r->plan = plan;
    report(r);
    if (r->o->dry_run) return TW_OK;
    return form == TW_FORM_COMPRESSED ? to_folder(r, form, out) : to_file(r, form, out);
}

static tw_status open_threads(const tw_quantize_options *o, tw_threads **out) {
    tw_target cpu;
    const tw_parallel none = {0};
    int32_t threads = o->threads ? o->threads : (int32_t)tw_option_int(TW_OPT_TW_THREADS);
    if (o->threads < 0)
        return tw_fail(TW_INVALID, "options: threads: %d, must be 0 or more", o->threads);
    TW_TRY(tw_cpu_detect("cpu", threads, &cpu));
    return tw_threads_create(&none, cpu.threads, out);
}

tw_status tw_quantize_model(const char *in, const char *out, const tw_quantize_options *options) {
    tw_quantize_options o;
    tw_form form;
    tw_model *model;
    if (!in) return tw_fail(TW_INVALID, "in: NULL, must be given");
    if (!out) return tw_fail(TW_INVALID, "out: NULL, must be given");
    TW_TRY(tw_struct_read("options", options, sizeof o, &o));
    TW_TRY(form_of(&o, out, &form));
    TW_TRY(tw_model_open(in, NULL, &model));
    tw_quantize_plan plan = {0};
    run r = {.model = model, .o = &o};
    tw_status status = o.dry_run ? TW_OK : check_out(model, out, form, o.overwrite);
    if (!status) status = open_threads(&o, &r.threads);
    if (!status) status = quantize(out, form, &r, &plan);
    tw_threads_destroy(r.threads);
    tw_quantize_plan_free(&plan);
    tw_model_close(model);
    return status;
}
