/* What ggml finds: a registry with one device, which offers one type of buffers. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hosts/ggml/backend.h"

bool twg_is_set(const char *name) {
    const char *value = getenv(name);
    return value && *value && strcmp(value, "0") != 0;
}

/* ---- ggml's CPU backend ---- */

ggml_backend_dev_t twg_cpu_device(void) {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

void *twg_cpu_function(const char *name) {
    ggml_backend_dev_t cpu = twg_cpu_device();
    return cpu ? ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name) : NULL;
}

/* ---- the context ---- */

static struct {
    pthread_mutex_t lock;
    tw_context *context;
    int64_t holders;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What went wrong; the rest is for who sets TW_DEBUG. */
static void write_log(void *user, tw_log_level level, const char *line) {
    const char *debug = getenv("TW_DEBUG");
    (void)user;
    if (level == TW_LOG_ERROR)
        GGML_LOG_ERROR("Tilewright: %s\n", line);
    else if (level == TW_LOG_WARN)
        GGML_LOG_WARN("Tilewright: %s\n", line);
    else if (debug && (int)level <= atoi(debug))
        GGML_LOG_INFO("Tilewright: %s\n", line);
}

tw_context *twg_context_hold(void) {
    pthread_mutex_lock(&shared.lock);
    if (!shared.context) {
        tw_options options = TW_OPTIONS_INIT;
        options.parallel = (tw_parallel){twg_parallel_run, NULL, twg_parallel_threads()};
        options.allocator = (tw_allocator){twg_memory_alloc, twg_memory_free, NULL};
        options.log.write = write_log;
        if (tw_context_create(&options, &shared.context))
            GGML_LOG_ERROR("Tilewright: %s\n", tw_error_message());
    }
    shared.holders += shared.context != NULL;
    pthread_mutex_unlock(&shared.lock);
    return shared.context;
}

void twg_context_release(void) {
    pthread_mutex_lock(&shared.lock);
    if (!--shared.holders) {
        tw_context_destroy(shared.context);
        shared.context = NULL;
    }
    pthread_mutex_unlock(&shared.lock);
}

/* ---- the device ---- */

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t device);

static const char *device_name(ggml_backend_dev_t device) {
    (void)device;
    return "Tilewright";
}

/* "AMD EPYC (avx512vnni, 8 threads)" */
static const char *device_description(ggml_backend_dev_t device) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static char text[128];
    (void)device;
    pthread_mutex_lock(&lock);
    tw_device_info info = TW_DEVICE_INFO_INIT;
    tw_context *context = text[0] ? NULL : twg_context_hold();
    if (context && !tw_context_device(context, &info))
        snprintf(text, sizeof text, "%s (%s, %d threads)", info.name, info.target, info.threads);
    if (context) twg_context_release();
    pthread_mutex_unlock(&lock);
    return text[0] ? text : "Tilewright";
}

/* The machine's. */
static void device_memory(ggml_backend_dev_t device, size_t *free, size_t *total) {
    (void)device;
    ggml_backend_dev_memory(twg_cpu_device(), free, total);
}

static bool has_gpu(void) {
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (device->iface.get_type != device_type &&
            ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_GPU)
            return true;
    }
    return false;
}

/* llama.cpp gives whole layers to devices that compute, caches and all, so that a graph stays in
 * one piece: hence IGPU, a device in the machine's own memory.  It takes those where there is no
 * GPU; beside one, ACCEL has the weights of the layers that stay with the CPU. */
static enum ggml_backend_dev_type device_type(ggml_backend_dev_t device) {
    (void)device;
    return has_gpu() ? GGML_BACKEND_DEVICE_TYPE_ACCEL : GGML_BACKEND_DEVICE_TYPE_IGPU;
}

static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props *props) {
    props->name = device_name(device);
    props->description = device_description(device);
    props->type = device_type(device);
    device_memory(device, &props->memory_free, &props->memory_total);
    props->caps =
        (struct ggml_backend_dev_caps){.buffer_from_host_ptr = true, .mmap_support = true};
}

static ggml_backend_t device_init(ggml_backend_dev_t device, const char *params) {
    (void)params;
    return twg_backend_create(device);
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t device) {
    (void)device;
    return twg_buffer_type();
}

static ggml_backend_buffer_t device_buffer_of_host(ggml_backend_dev_t device, void *memory,
                                                   size_t size, size_t largest_tensor) {
    (void)device, (void)largest_tensor;
    return twg_buffer_of_host(twg_buffer_type(), memory, size);
}

static bool is_product(const struct ggml_tensor *op) {
    return (op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_MUL_MAT_ID) &&
           op->type == GGML_TYPE_F32 &&
           (op->src[1]->type == GGML_TYPE_F32 || op->src[1]->type == GGML_TYPE_F16 ||
            op->src[1]->type == GGML_TYPE_BF16);
}

/* What ggml's CPU backend does, apart from reading weights that are packed and gone: that is for
 * products, whose first source they are. */
static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor *op) {
    bool packed = false;
    (void)device;
    for (int i = 0; i < GGML_MAX_SRC; i++) {
        const struct ggml_tensor *src = op->src[i];
        if (!src || !twg_buffer_packs(src, op->op)) continue;
        if (!i && !src->view_src && is_product(op) && twg_weights_possible(src))
            packed = true;
        else if (!twg_buffer_keeps(src))
            return false;
    }
    return packed || ggml_backend_dev_supports_op(twg_cpu_device(), op);
}

static bool device_supports_buffer_type(ggml_backend_dev_t device,
                                        ggml_backend_buffer_type_t type) {
    (void)device;
    return type == twg_buffer_type() || ggml_backend_buft_is_host(type);
}

static const struct ggml_backend_device_i device_interface = {
    .get_name = device_name,
    .get_description = device_description,
    .get_memory = device_memory,
    .get_type = device_type,
    .get_props = device_props,
    .init_backend = device_init,
    .get_buffer_type = device_buffer_type,
    .buffer_from_host_ptr = device_buffer_of_host,
    .supports_op = device_supports_op,
    .supports_buft = device_supports_buffer_type,
};

/* ---- the buffer type ---- */

static const char *buffer_type_name(ggml_backend_buffer_type_t type) {
    (void)type;
    return "Tilewright";
}

static size_t buffer_type_alignment(ggml_backend_buffer_type_t type) {
    (void)type;
    return 64;
}

static const struct ggml_backend_buffer_type_i buffer_type_interface = {
    .get_name = buffer_type_name,
    .alloc_buffer = twg_buffer_create,
    .get_alignment = buffer_type_alignment,
};

/* ---- the registry ---- */

static const char *registry_name(ggml_backend_reg_t registry) {
    (void)registry;
    return "Tilewright";
}

static size_t registry_count(ggml_backend_reg_t registry) {
    (void)registry;
    return 1;
}

static ggml_backend_dev_t registry_device(ggml_backend_reg_t registry, size_t index);

static void *registry_function(ggml_backend_reg_t registry, const char *name) {
    (void)registry;
    if (!strcmp(name, "ggml_backend_set_n_threads")) return (void *)twg_backend_set_n_threads;
    if (!strcmp(name, "ggml_backend_set_abort_callback"))
        return (void *)twg_backend_set_abort_callback;
    return NULL;
}

#ifndef TWG_API_VERSION
#define TWG_API_VERSION GGML_BACKEND_API_VERSION /* another one for a test */
#endif

static struct ggml_backend_reg registry = {
    .api_version = TWG_API_VERSION,
    .iface = {registry_name, registry_count, registry_device, registry_function},
};

static struct ggml_backend_device the_device = {.iface = device_interface, .reg = &registry};

static struct ggml_backend_buffer_type the_buffer_type = {.iface = buffer_type_interface,
                                                          .device = &the_device};

static ggml_backend_dev_t registry_device(ggml_backend_reg_t unused, size_t index) {
    (void)unused;
    return index ? NULL : &the_device;
}

ggml_backend_buffer_type_t twg_buffer_type(void) { return &the_buffer_type; }

/* The API version tells of the interfaces, not of ggml.h's own structs and numbers. */
static bool same_ggml(void) {
    enum { OBJECT = 32 }; /* sizeof(struct ggml_object), which ggml counts in */
    return ggml_tensor_overhead() == sizeof(struct ggml_tensor) + OBJECT &&
           !strcmp(ggml_op_name(GGML_OP_MUL_MAT), "MUL_MAT") &&
           !strcmp(ggml_op_name(GGML_OP_MUL_MAT_ID), "MUL_MAT_ID") &&
           !strcmp(ggml_op_name(GGML_OP_FLASH_ATTN_EXT), "FLASH_ATTN_EXT") &&
           !strcmp(ggml_op_name(GGML_OP_CUSTOM), "CUSTOM");
}

/* What ggml's loader calls.  It compares the API version with its own, and says so where they
 * differ, before it calls anything else. */
GGML_BACKEND_API ggml_backend_reg_t ggml_backend_init(void);
ggml_backend_reg_t ggml_backend_init(void) {
    if (!same_ggml()) {
        GGML_LOG_ERROR(
            "Tilewright: built for another ggml than this one (%s), whose tensors differ; "
            "build hosts/ggml from its sources\n",
            ggml_version());
        return NULL;
    }
    if (!twg_cpu_device()) {
        GGML_LOG_ERROR("Tilewright: this ggml has no CPU backend, which its graphs run on\n");
        return NULL;
    }
    return &registry;
}
