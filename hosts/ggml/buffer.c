/* Buffers: memory as usual, but weights that are set become layers.
 *
 * A buffer reserves addresses, which take memory only where somebody writes.  Weights that are set
 * as a whole go into their layers and leave their place untouched, so that they exist once; those
 * that come in pieces, or are read into the place, become layers when a graph first multiplies by
 * them, and the place is given back.  TW_GGML_KEEP=1 keeps ggml's blocks as well, for programs that
 * read weights back or change parts of them.
 *
 * A buffer over a host's memory leaves that as it is.  Where it is a file mapped for reading only,
 * what is in it is there from the start: layers are made in the background as soon as a tensor is
 * placed.  The pages may be given back nevertheless, since the kernel reads them again. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hosts/ggml/backend.h"

typedef struct space {
    char *base;
    size_t size;
    pthread_mutex_t lock; /* held to make layers and to drop them, in the list and in `extra` */
    twg_weights *weights; /* of all tensors that have layers, or cannot have any */
    bool keep;            /* the blocks can always be read in their place */
    bool host;            /* the memory is somebody else's */
    bool mapped;          /* namely a file's, shared and read-only */
} space;

static atomic_uint changes; /* to what is known of tensors */

static space *space_of(ggml_backend_buffer_t buffer) { return buffer->context; }

static void free_buffer(ggml_backend_buffer_t buffer) {
    space *s = space_of(buffer);
    atomic_fetch_add(&changes, 1);
    for (twg_weights *next, *w = s->weights; w; w = next) {
        next = w->next;
        twg_packer_forget(w);
        twg_weights_destroy(w);
    }
    if (!s->host) munmap(s->base, s->size);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void *get_base(ggml_backend_buffer_t buffer) { return space_of(buffer)->base; }

/* What is known of a tensor, complete once it can be seen; NULL: nothing. */
static twg_weights *find(const struct ggml_tensor *tensor) {
    return __atomic_load_n((twg_weights *const *)&tensor->extra, __ATOMIC_ACQUIRE);
}

static bool is_done(const twg_weights *w) {
    return atomic_load_explicit(&w->state, memory_order_acquire) == TWG_DONE;
}

static bool is_packed(const struct ggml_tensor *tensor) {
    const twg_weights *w = find(tensor);
    return w && w->count;
}

/* The lock is held. */
static void show(space *s, struct ggml_tensor *tensor, twg_weights *w) {
    w->next = s->weights;
    s->weights = w;
    atomic_fetch_add(&changes, 1);
    __atomic_store_n((twg_weights **)&tensor->extra, w, __ATOMIC_RELEASE);
}

/* Makes layers of the blocks, or notes that there can be none.  The lock is held. */
static bool enter(space *s, struct ggml_tensor *tensor, const void *blocks) {
    twg_weights *w = twg_weights_create(tensor);
    if (!w) return false;
    bool made = twg_weights_fill(w, blocks) && twg_weights_prepare(w);
    show(s, tensor, w);
    return made;
}

static void leave(space *s, struct ggml_tensor *tensor) {
    atomic_fetch_add(&changes, 1);
    pthread_mutex_lock(&s->lock);
    twg_weights *w = find(tensor), **at = &s->weights;
    while (*at && *at != w) at = &(*at)->next;
    if (*at) *at = w->next;
    tensor->extra = NULL;
    twg_packer_forget(w);
    twg_weights_destroy(w);
    pthread_mutex_unlock(&s->lock);
}

/* Gives back the whole pages of a place. */
static void discard(char *from, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)from + page - 1) / page * page;
    uintptr_t last = ((uintptr_t)from + size) / page * page;
    if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
}

/* A tensor, or a part of it, is about to be written in its place or read there. */
static void use_place(space *s, const struct ggml_tensor *tensor, bool writes, size_t size) {
    const struct ggml_tensor *root = tensor->view_src ? tensor->view_src : tensor;
    bool whole = root == tensor && size == ggml_nbytes(tensor);
    if (s->mapped && writes)
        GGML_ABORT("Tilewright: %s is written, but it lies in a file that is mapped for reading",
                   root->name);
    if (s->keep || !is_packed(root) || root->buffer->usage != GGML_BACKEND_BUFFER_USAGE_WEIGHTS ||
        (writes && whole))
        return;
    GGML_ABORT("Tilewright: %s (%s, %zu bytes) is %s, but its blocks were packed and not kept; "
               "TW_GGML_KEEP=1 keeps them",
               root->name[0] ? root->name : "a tensor of weights", ggml_type_name(root->type), size,
               writes ? "written in part" : "read back");
}

static void set_tensor(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, const void *data,
                       size_t offset, size_t size) {
    space *s = space_of(buffer);
    use_place(s, tensor, true, size);
    twg_buffer_changed(tensor);
    bool whole = buffer->usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS && !tensor->view_src &&
                 size == ggml_nbytes(tensor) && twg_weights_possible(tensor),
         made = false;
    if (whole) {
        pthread_mutex_lock(&s->lock);
        made = enter(s, tensor, data);
        pthread_mutex_unlock(&s->lock);
    }
    if (!made || s->keep) memcpy((char *)tensor->data + offset, data, size);
}

static void get_tensor(ggml_backend_buffer_t buffer, const struct ggml_tensor *tensor, void *data,
                       size_t offset, size_t size) {
    use_place(space_of(buffer), tensor, false, size);
    memcpy(data, (const char *)tensor->data + offset, size);
}

static void memset_tensor(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, uint8_t value,
                          size_t offset, size_t size) {
    use_place(space_of(buffer), tensor, true, size);
    twg_buffer_changed(tensor);
    memset((char *)tensor->data + offset, value, size);
}

static void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    space *s = space_of(buffer);
    while (s->weights) leave(s, s->weights->tensor);
    if (value || s->host) {
        memset(s->base, value, s->size);
        return;
    }
    madvise(s->base, s->size, MADV_DONTNEED); /* and it reads as zeros */
    madvise(s->base, s->size, MADV_HUGEPAGE); /* a cache of keys and values, which is read whole */
}

/* Tuning would measure what packing leaves of the machine: then who needs layers makes them. */
static bool tunes(void) { return twg_is_set("TW_TUNE"); }

static enum ggml_status init_tensor(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor) {
    space *s = space_of(buffer);
    bool matrix = !tensor->view_src && tensor->ne[1] > 1 && twg_weights_possible(tensor);
    if (!s->mapped || buffer->usage != GGML_BACKEND_BUFFER_USAGE_WEIGHTS || !matrix || tunes())
        return GGML_STATUS_SUCCESS;
    twg_weights *w = twg_weights_create(tensor);
    if (!w) return GGML_STATUS_ALLOC_FAILED;
    w->fresh = w->mapped = true;
    pthread_mutex_lock(&s->lock);
    twg_packer_add(w);
    show(s, tensor, w);
    pthread_mutex_unlock(&s->lock);
    return GGML_STATUS_SUCCESS;
}

static const struct ggml_backend_buffer_i buffer_interface = {
    .free_buffer = free_buffer,
    .get_base = get_base,
    .init_tensor = init_tensor,
    .memset_tensor = memset_tensor,
    .set_tensor = set_tensor,
    .get_tensor = get_tensor,
    .clear = clear,
};

static space *space_create(void *base, size_t size) {
    space *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->base = base;
    s->size = size;
    s->keep = twg_is_set("TW_GGML_KEEP");
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

ggml_backend_buffer_t twg_buffer_create(ggml_backend_buffer_type_t type, size_t size) {
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        GGML_LOG_ERROR("Tilewright: no %zu bytes of addresses for a buffer\n", size);
        return NULL;
    }
    space *s = space_create(base, size);
    if (s) return ggml_backend_buffer_init(type, buffer_interface, s, size);
    munmap(base, size);
    return NULL;
}

/* Whether all of the memory is files that are mapped shared and for reading only: nobody can have
 * changed it through the mapping, so that pages that are given back come again as they were. */
static bool is_mapped_file(const void *memory, size_t size) {
    FILE *maps = fopen("/proc/self/maps", "re");
    uintptr_t at = (uintptr_t)memory, end = at + size, from, to;
    char line[512], access[5];
    unsigned long inode;
    bool whole_line = true;
    while (maps && at < end && fgets(line, sizeof line, maps)) {
        bool begins = whole_line;
        whole_line = strchr(line, '\n');
        if (!begins || sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %lu", &from, &to, access,
                              &inode) != 4)
            continue;
        if (from <= at && at < to && access[1] == '-' && access[3] == 's' && inode) at = to;
    }
    if (maps) fclose(maps);
    return maps && at >= end;
}

ggml_backend_buffer_t twg_buffer_of_host(ggml_backend_buffer_type_t type, void *memory,
                                         size_t size) {
    space *s = space_create(memory, size);
    if (!s) return NULL;
    s->host = s->keep = true;
    s->mapped = is_mapped_file(memory, size);
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

bool twg_buffer_keeps(const struct ggml_tensor *source) {
    ggml_backend_buffer_t buffer = (source->view_src ? source->view_src : source)->buffer;
    return buffer->size && space_of(buffer)->keep; /* an empty one has nothing */
}

bool twg_buffer_unsaid(const struct ggml_tensor *tensor) {
    return twg_buffer_is_ours(tensor->buffer) &&
           tensor->buffer->usage == GGML_BACKEND_BUFFER_USAGE_ANY;
}

twg_weights *twg_buffer_fresh(const struct ggml_tensor *tensor) {
    if (!twg_buffer_is_ours(tensor->buffer) || tensor->view_src || tensor->op != GGML_OP_NONE)
        return NULL;
    twg_weights *w = find(tensor);
    return w && atomic_load_explicit(&w->fresh, memory_order_relaxed) ? w : NULL;
}

/* Makes layers of a tensor that has been written in its place. */
static void enter_late(space *s, struct ggml_tensor *tensor) {
    bool said = tensor->buffer->usage == GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
    pthread_mutex_lock(&s->lock);
    bool made = !find(tensor) && enter(s, tensor, tensor->data);
    if (made && (s->mapped || (!s->keep && said))) discard(tensor->data, ggml_nbytes(tensor));
    pthread_mutex_unlock(&s->lock);
}

/* Mapped weights whose layers are multiplied by for the first time: now nobody reads the blocks. */
static void leave_mapping(space *s, const struct ggml_tensor *tensor, twg_weights *w) {
    pthread_mutex_lock(&s->lock);
    if (w->mapped && twg_weights_prepare(w)) discard(tensor->data, ggml_nbytes(tensor));
    w->mapped = false;
    pthread_mutex_unlock(&s->lock);
}

twg_weights *twg_buffer_weights(struct ggml_tensor *tensor) {
    ggml_backend_buffer_t buffer = tensor->buffer;
    if (!twg_buffer_is_ours(buffer) || tensor->view_src || tensor->op != GGML_OP_NONE) return NULL;
    twg_weights *w = find(tensor);
    if (!w && buffer->usage != GGML_BACKEND_BUFFER_USAGE_COMPUTE && twg_weights_possible(tensor)) {
        enter_late(space_of(buffer), tensor);
        w = find(tensor);
    }
    if (!w) return NULL;
    if (!is_done(w)) twg_packer_finish(w);
    if (w->mapped) leave_mapping(space_of(buffer), tensor, w);
    return w->count ? w : NULL;
}

void twg_buffer_changed(struct ggml_tensor *tensor) {
    struct ggml_tensor *root = tensor->view_src ? tensor->view_src : tensor;
    if (twg_buffer_is_ours(root->buffer) && root->op == GGML_OP_NONE && find(root))
        leave(space_of(root->buffer), root);
}

unsigned twg_buffer_changes(void) { return atomic_load(&changes); }
