/* Finds and opens the LLVM module on the first compile; a warm process never comes here. */
#define _GNU_SOURCE
#include "codegen/cpu/compile.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cpu/module.h"
#include "codegen/cpu/trace.h"
#include "src/base/options.h"
#include "src/base/status.h"
#include "tw_build.h"

#define MODULE_FILE "libtilewright-llvm.so"

/* Once opened a module stays: LLVM cannot be closed, and its state is constant from then on. */
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static const tw_module *_Atomic module;

const char *tw_cpu_compiler(void) { return TW_COMPILER; }
bool tw_cpu_compiler_opened(void) { return module != NULL; }

static tw_status module_at(const char *path, const tw_module **out) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return tw_fail(TW_UNSUPPORTED, "LLVM module: %s", dlerror());
    tw_module_fn *entry;
    *(void **)&entry = dlsym(handle, TW_MODULE_SYMBOL);
    if (!entry)
        return tw_fail(TW_UNSUPPORTED, "LLVM module: %s does not export %s", path,
                       TW_MODULE_SYMBOL);
    const tw_module *m = entry();
    if (strcmp(m->version, TW_BUILD_VERSION) != 0 || m->shape != TW_MODULE_SHAPE)
        return tw_fail(TW_UNSUPPORTED, "LLVM module: %s is of version %s, this library of %s", path,
                       m->version, TW_BUILD_VERSION);
    *out = m;
    return TW_OK;
}

/* The file that this code was loaded from, behind symbolic links, or "" where nobody knows. */
static void own_path(char path[PATH_MAX]) {
    static const char anchor; /* any address inside this library or program */
    Dl_info here;
    void *map = NULL;
    path[0] = '\0';
    if (!dladdr1(&anchor, &here, &map, RTLD_DL_LINKMAP)) return;
    /* Of a program the loader knows only argv[0], which may be a bare name or anything else. */
    bool program = !map || !*((const struct link_map *)map)->l_name;
    if (!realpath(program ? "/proc/self/exe" : here.dli_fname, path)) path[0] = '\0';
}

/* $TW_MODULE alone when set; else beside this library; from a program's folder to the library's, as
 * they were installed, wherever that is now; where they were to be installed; on the loader's
 * path. */
static tw_status module_find(const tw_module **out) {
    const char *forced = tw_option_text(TW_OPT_TW_MODULE);
    if (*forced) return module_at(forced, out);
    char self[PATH_MAX];
    tw_str beside = {0}, across = {0};
    own_path(self);
    if (*self) {
        int folder = (int)(strrchr(self, '/') - self);
        tw_str_add(&beside, "%.*s/" MODULE_FILE, folder, self);
        tw_str_add(&across, "%.*s/" TW_BIN_TO_LIB "/" MODULE_FILE, folder, self);
    }
    const char *places[] = {tw_str_text(&beside), tw_str_text(&across), TW_LIBDIR "/" MODULE_FILE,
                            MODULE_FILE};
    tw_status status = TW_UNSUPPORTED;
    for (size_t i = 0; i < TW_COUNT(places) && status != TW_OK; i++)
        if (*places[i]) status = module_at(places[i], out);
    tw_str_free(&beside);
    tw_str_free(&across);
    return status;
}

tw_status tw_cpu_compiler_open(void) {
    if (module) return TW_OK;
    pthread_mutex_lock(&opening);
    tw_status status = TW_OK;
    if (!module) {
        const tw_module *found = NULL;
        status = module_find(&found);
        module = found;
    }
    pthread_mutex_unlock(&opening);
    return status;
}

/* Each banner line as a comment of the output's language. */
static void add_banner(tw_str *out, const char *banner, const char *comment) {
    for (const char *line = banner; *line;) {
        size_t n = strcspn(line, "\n");
        tw_str_add(out, "%s%.*s\n", comment, (int)n, line);
        line += n + (line[n] == '\n');
    }
}

tw_status tw_cpu_compile(const tw_target *target, tw_emit_fn *emit, const void *arg,
                         const char *banner, tw_code_kind kind, tw_str *out) {
    static const char *const comments[] = {
        [TW_CODE_IR] = "; ", [TW_CODE_ASM] = "# ", [TW_CODE_TRACE] = "# "};
    if (kind == TW_CODE_TRACE) {
        add_banner(out, banner, comments[kind]);
        return tw_trace(target, emit, arg, out);
    }
    TW_TRY(tw_cpu_compiler_open());
    tw_module_result result = {0};
    tw_status status = module->compile(target, tw_target_isa(target), emit, arg, kind, &result);
    if (status == TW_COMPILE) return tw_fail(status, "LLVM: %s", result.message);
    if (status != TW_OK) return status;
    if (comments[kind]) add_banner(out, banner, comments[kind]);
    tw_str_add_bytes(out, result.bytes, result.size);
    free(result.bytes);
    return tw_str_ok(out);
}
