/* What this CPU is: the instruction sets that it and its operating system run, caches, threads. */
#define _GNU_SOURCE
#include <cpuinfo.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/backend/backend.h"
#include "src/base/status.h"
#include "src/base/str.h"

enum { MOST_CPUS = 1 << 16 };

/* The compiler's own table knows newer features than the cpuinfo that distributions ship; it asks
 * the operating system (XGETBV) as well, without which wide registers do not survive a switch. */
#if defined(__x86_64__)
static bool runs_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

static bool runs_avx512(void) {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512cd");
}

static bool runs_bf16(void) {
    return runs_avx512() && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
}

static bool has_amx(void) {
    return runs_bf16() && __builtin_cpu_supports("gfni") && __builtin_cpu_supports("amx-tile") &&
           __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16");
}

/* The matrix unit's registers are 8 KiB a thread, which Linux saves for a process that asked only:
 * once, for all its threads and those it forks. */
static bool may_use_tiles(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* asm/prctl.h of Linux 5.16 and later */
    return !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

const char *tw_cpu_refused(void) {
    __builtin_cpu_init();
    if (!has_amx() || may_use_tiles()) return NULL;
    return "the system refuses AMX to this process (a signal stack too small for its state, or a "
           "filter of system calls): kernels do without";
}

bool tw_cpu_can_run(tw_isa isa) {
    __builtin_cpu_init();
    switch (isa) {
    case TW_ISA_portable: return true;
    case TW_ISA_avx2: return runs_avx2();
    case TW_ISA_avxvnni: return runs_avx2() && __builtin_cpu_supports("avxvnni");
    case TW_ISA_avx512: return runs_avx512();
    case TW_ISA_avx512vnni: return runs_avx512() && __builtin_cpu_supports("avx512vnni");
    case TW_ISA_avx512bf16: return runs_bf16();
    case TW_ISA_avx512gfni: return runs_bf16() && __builtin_cpu_supports("gfni");
    case TW_ISA_avx512amx: return has_amx() && may_use_tiles();
    case TW_ISA_COUNT: break;
    }
    return false;
}
#else
bool tw_cpu_can_run(tw_isa isa) { return isa == TW_ISA_portable; }
const char *tw_cpu_refused(void) { return NULL; }
#endif

/* CPUs in this process's affinity mask, which may be wider than cpu_set_t. */
static int32_t allowed_cpus(void) {
    for (int cpus = CPU_SETSIZE; cpus <= MOST_CPUS; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (!set) return 1;
        size_t size = CPU_ALLOC_SIZE((size_t)cpus);
        int failed = sched_getaffinity(0, size, set);
        int count = failed ? 0 : CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (!failed) return count > 0 ? count : 1;
    }
    return 1;
}

static int64_t cache_size(const struct cpuinfo_cache *cache) {
    return cache ? (int64_t)cache->size : 0;
}

/* Facts as cpuinfo has them; a system that it cannot read leaves sizes of 0. */
static void fill_facts(tw_target *t) {
    snprintf(t->model, sizeof t->model, "unknown");
    if (!cpuinfo_initialize()) return;
    const struct cpuinfo_package *package = cpuinfo_get_package(0);
    if (package && package->name[0]) snprintf(t->model, sizeof t->model, "%s", package->name);
    /* The text goes into keys, whose fields a semicolon ends. */
    for (char *c = t->model; *c; c++)
        if (*c == ';' || *c == '\n') *c = ' ';
    if (cpuinfo_get_l1d_caches_count()) t->l1_bytes = cache_size(cpuinfo_get_l1d_cache(0));
    if (cpuinfo_get_l2_caches_count()) t->l2_bytes = cache_size(cpuinfo_get_l2_cache(0));
    if (cpuinfo_get_l3_caches_count()) t->l3_bytes = cache_size(cpuinfo_get_l3_cache(0));
}

static tw_isa best_isa(void) {
    tw_isa best = TW_ISA_portable;
    for (int i = 0; i < TW_ISA_COUNT; i++)
        if (tw_cpu_can_run((tw_isa)i)) best = (tw_isa)i;
    return best;
}

static tw_status unknown_target(const char *name) {
    tw_str names = {0};
    for (int i = 0; i < TW_ISA_COUNT; i++)
        tw_str_add(&names, "%s%s", i ? ", " : "", tw_isas[i].name);
    tw_fail(TW_INVALID, "device: cpu:%.40s, expected cpu or cpu:TARGET with TARGET one of %s", name,
            tw_str_text(&names));
    tw_str_free(&names);
    return TW_INVALID;
}

static tw_status parse_device(const char *device, tw_isa *isa) {
    if (strncmp(device, "cpu", 3) || (device[3] && device[3] != ':'))
        return tw_fail(TW_UNSUPPORTED, "device: \"%.40s\", this build has cpu and cpu:TARGET only",
                       device);
    *isa = device[3] ? tw_isa_parse(device + 4) : best_isa();
    return *isa == TW_ISA_COUNT ? unknown_target(device + 4) : TW_OK;
}

tw_status tw_cpu_describe(const char *device, int32_t threads, tw_target *out) {
    tw_target t = {0};
    TW_TRY(parse_device(device ? device : "cpu", &t.isa));
    if (threads < 0 || threads > TW_MAX_THREADS)
        return tw_fail(TW_INVALID, "threads: %d, expected 0 to %d", threads, TW_MAX_THREADS);
    fill_facts(&t);
    t.threads = threads ? threads : (int32_t)tw_min(allowed_cpus(), TW_MAX_THREADS);
    *out = t;
    return TW_OK;
}

tw_status tw_cpu_detect(const char *device, int32_t threads, tw_target *out) {
    tw_target t = {0};
    TW_TRY(tw_cpu_describe(device, threads, &t));
    if (!tw_cpu_can_run(t.isa))
        return tw_fail(TW_UNSUPPORTED, "device: cpu:%s, this CPU (%s) runs cpu:%s at most",
                       tw_isas[t.isa].name, t.model, tw_isas[best_isa()].name);
    *out = t;
    return TW_OK;
}
