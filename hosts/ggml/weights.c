/* A weight tensor as Tilewright layers. */
#include <stdlib.h>

#include "hosts/ggml/backend.h"

/* Made ready when a model is loaded: a token, and llama.cpp's default micro-batch.  Other M get
 * theirs at their first use. */
static const int64_t prepared_for[] = {1, 512};

bool twg_weights_possible(const struct ggml_tensor *tensor) {
    tw_scheme scheme;
    int64_t block, bytes;
    return !ggml_is_empty(tensor) && ggml_is_contiguous(tensor) &&
           tw_gguf_type((uint32_t)tensor->type, &scheme, &block, &bytes) == TW_OK &&
           block == ggml_blck_size(tensor->type) &&
           bytes == (int64_t)ggml_type_size(tensor->type) && tensor->ne[0] % block == 0;
}

twg_weights *twg_weights_create(struct ggml_tensor *tensor) {
    size_t count = (size_t)(tensor->ne[2] * tensor->ne[3]);
    twg_weights *w = calloc(1, sizeof *w + count * sizeof w->linears[0]);
    if (!w) return NULL;
    w->tensor = tensor;
    w->like = *tensor;
    w->state = TWG_DONE;
    return w;
}

static bool make_linears(twg_weights *w, tw_context *context, const char *blocks) {
    const struct ggml_tensor *t = &w->like;
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    desc.K = t->ne[0];
    desc.N = t->ne[1];
    if (twg_is_set("TW_GGML_STRICT")) { /* x as ggml quantizes it, however many rows it has */
        if (tw_gguf_type((uint32_t)t->type, &desc.scheme, NULL, NULL)) return false;
        desc.scheme.fpmath = TW_FPMATH_STRICT;
    }
    for (int64_t i = 0; i < t->ne[2] * t->ne[3]; i++) {
        tw_linear **out = &w->linears[w->count];
        if (tw_linear_create_gguf(context, &desc, (uint32_t)t->type, blocks + (size_t)i * t->nb[2],
                                  t->nb[1], NULL, out))
            return false;
        w->count++;
    }
    return true;
}

static void drop_linears(twg_weights *w) {
    for (int64_t i = 0; i < w->count; i++) tw_linear_destroy(w->linears[i]);
    if (w->count) twg_context_release();
    w->count = 0;
}

static bool give_up(twg_weights *w) {
    GGML_LOG_WARN("Tilewright: %s: %s; ggml's CPU backend computes with it\n", w->like.name,
                  tw_error_message());
    if (w->count)
        drop_linears(w);
    else
        twg_context_release();
    return false;
}

bool twg_weights_fill(twg_weights *w, const void *blocks) {
    tw_context *context = twg_context_hold();
    if (!context) return false;
    return make_linears(w, context, blocks) || give_up(w);
}

bool twg_weights_prepare(twg_weights *w) {
    /* Layers of one shape share their kernels, so the first one stands for all. */
    if (w->count && !w->prepared && tw_linear_prepare(w->linears[0], prepared_for, 2, 1))
        return give_up(w);
    w->prepared = true;
    return w->count;
}

void twg_weights_destroy(twg_weights *w) {
    if (!w) return;
    drop_linears(w);
    free(w);
}
