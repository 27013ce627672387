/* Buffers: memory as usual, but weights that are set become layers.
 *
 * A buffer reserves addresses, which take memory only where somebody writes.  Weights go into their
 * layers and leave their place untouched, so that they exist once; TW_GGML_KEEP=1 keeps ggml's
 * blocks as well, for programs that read weights back. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hosts/ggml/backend.h"

typedef struct space {
    char *base;
    size_t size;
    twg_weights *weights; /* of all tensors that have layers */
    bool keep;
} space;

static space *space_of(ggml_backend_buffer_t buffer) { return buffer->context; }

static void free_buffer(ggml_backend_buffer_t buffer) {
    space *s = space_of(buffer);
    for (twg_weights *next, *w = s->weights; w; w = next) {
        next = w->next;
        twg_weights_destroy(w);
    }
    munmap(s->base, s->size);
    free(s);
}

static void *get_base(ggml_backend_buffer_t buffer) { return space_of(buffer)->base; }

static twg_weights *find(const space *s, const struct ggml_tensor *tensor) {
    twg_weights *w = tensor->extra;
    (void)s;
    return w;
}

static twg_weights *enter(space *s, struct ggml_tensor *tensor) {
    twg_weights *w = twg_weights_create(tensor);
    if (!w) return NULL;
    w->next = s->weights;
    s->weights = w;
    tensor->extra = w;
    return w;
}

static void leave(space *s, struct ggml_tensor *tensor) {
    twg_weights *w = find(s, tensor), **at = &s->weights;
    if (!w) return;
    while (*at && *at != w) at = &(*at)->next;
    if (*at) *at = w->next;
    tensor->extra = NULL;
    twg_weights_destroy(w);
}

/* Gives back the whole pages of a place. */
static void discard(char *from, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)from + page - 1) / page * page;
    uintptr_t last = ((uintptr_t)from + size) / page * page;
    if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
}

/* Whole tensors at once, as llama.cpp sets them, never lie in the buffer; pieces gather there. */
static void set_weights(space *s, struct ggml_tensor *tensor, const void *data, size_t offset,
                        size_t size) {
    char *place = tensor->data;
    size_t whole = ggml_nbytes(tensor);
    twg_weights *w = find(s, tensor);
    if (!w) w = enter(s, tensor);
    if (!w || size < whole || s->keep) memcpy(place + offset, data, size);
    if (!w) return;
    w->written = size == whole ? whole : w->written + size;
    if (w->written < whole) return;
    w->written = 0;
    bool made = twg_weights_fill(w, size == whole ? data : place);
    if (!made && size == whole) memcpy(place, data, size);
    if (!made) leave(s, tensor);
    if (made && size < whole && !s->keep) discard(place, whole);
}

static void set_tensor(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, const void *data,
                       size_t offset, size_t size) {
    if (buffer->usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS && !tensor->view_src &&
        twg_weights_possible(tensor)) {
        set_weights(space_of(buffer), tensor, data, offset, size);
        return;
    }
    twg_buffer_changed(tensor);
    memcpy((char *)tensor->data + offset, data, size);
}

static void get_tensor(ggml_backend_buffer_t buffer, const struct ggml_tensor *tensor, void *data,
                       size_t offset, size_t size) {
    const space *s = space_of(buffer);
    const struct ggml_tensor *root = tensor->view_src ? tensor->view_src : tensor;
    if (buffer->usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS && find(s, root) && !s->keep)
        GGML_ABORT("Tilewright: %s is read back, but its blocks were packed and not kept; "
                   "TW_GGML_KEEP=1 keeps them",
                   root->name);
    memcpy(data, (const char *)tensor->data + offset, size);
}

static void memset_tensor(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, uint8_t value,
                          size_t offset, size_t size) {
    (void)buffer;
    twg_buffer_changed(tensor);
    memset((char *)tensor->data + offset, value, size);
}

static void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    space *s = space_of(buffer);
    while (s->weights) leave(s, s->weights->tensor);
    if (value)
        memset(s->base, value, s->size);
    else
        madvise(s->base, s->size, MADV_DONTNEED); /* and it reads as zeros */
}

static const struct ggml_backend_buffer_i buffer_interface = {
    .free_buffer = free_buffer,
    .get_base = get_base,
    .memset_tensor = memset_tensor,
    .set_tensor = set_tensor,
    .get_tensor = get_tensor,
    .clear = clear,
};

ggml_backend_buffer_t twg_buffer_create(ggml_backend_buffer_type_t type, size_t size) {
    const char *keep = getenv("TW_GGML_KEEP");
    space *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->keep = keep && *keep && strcmp(keep, "0") != 0;
    s->size = size;
    s->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (s->base == MAP_FAILED) {
        GGML_LOG_ERROR("Tilewright: no %zu bytes of addresses for a buffer\n", size);
        free(s);
        return NULL;
    }
    return ggml_backend_buffer_init(type, buffer_interface, s, size);
}

bool twg_buffer_is_ours(ggml_backend_buffer_t buffer) {
    return buffer && buffer->buft == twg_buffer_type();
}

bool twg_buffer_packs(const struct ggml_tensor *source, enum ggml_op op) {
    const struct ggml_tensor *root = source->view_src ? source->view_src : source;
    if (!twg_buffer_is_ours(root->buffer)) return false;
    if (root->buffer->usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS) return true;
    return !root->buffer->size && root == source && op != GGML_OP_SET_ROWS && !ggml_op_is_empty(op);
}

twg_weights *twg_buffer_weights(struct ggml_tensor *tensor) {
    ggml_backend_buffer_t buffer = tensor->buffer;
    if (!twg_buffer_is_ours(buffer) || tensor->view_src) return NULL;
    space *s = space_of(buffer);
    twg_weights *w = find(s, tensor);
    if (w) return w->count ? w : NULL;
    if (buffer->usage != GGML_BACKEND_BUFFER_USAGE_ANY || tensor->op != GGML_OP_NONE ||
        !twg_weights_possible(tensor))
        return NULL;
    w = enter(s, tensor);
    if (w && twg_weights_fill(w, tensor->data)) return w;
    leave(s, tensor);
    return NULL;
}

void twg_buffer_changed(struct ggml_tensor *tensor) {
    struct ggml_tensor *root = tensor->view_src ? tensor->view_src : tensor;
    if (twg_buffer_is_ours(root->buffer) && root->op == GGML_OP_NONE)
        leave(space_of(root->buffer), root);
}
