/* tilewright doctor: what works here, and what to do about what does not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autotune/limits.h"
#include "src/base/clock.h"
#include "src/base/options.h"
#include "tools/commands.h"
#include "tools/input.h"
#include "tools/out.h"

typedef struct doctor {
    bool json;
    int failures;
    tw_target target;
    bool has_target;
} doctor;

typedef enum verdict { GOOD, ADVICE, BAD } verdict;

/* remedy: NULL where there is nothing to do. */
static void tell(doctor *d, verdict v, const char *what, const char *found, const char *remedy) {
    static const char *const words[] = {"ok", "advice", "failed"};
    d->failures += v == BAD;
    if (d->json)
        out_json(json_pack("{s:s,s:s,s:o,s:o}", "check", what, "verdict", words[v], "found",
                           out_json_text(found), "remedy",
                           remedy ? out_json_text(remedy) : json_null()));
    else
        out_line("%-7s %-10s %s%s%s", words[v], what, found,
                 remedy ? "\n                   -> " : "", remedy ? remedy : "");
}

static void check_cpu(doctor *d) {
    char found[160];
    d->has_target = tw_cpu_detect("cpu", tw_option_int(TW_OPT_TW_THREADS), &d->target) == TW_OK;
    if (!d->has_target) {
        tell(d, BAD, "cpu", tw_error_message(),
             "give a target that exists: tilewright list targets");
        return;
    }
    snprintf(found, sizeof found, "%s, target %s, %d threads", d->target.model,
             tw_target_isa(&d->target)->name, d->target.threads);
    bool vectors = d->target.isa != TW_ISA_portable;
    tell(d, vectors ? GOOD : ADVICE, "cpu", found,
         vectors ? NULL
                 : "no AVX2 here: kernels run, but slowly; in a virtual machine pass the host's "
                   "CPU features on");
}

static void check_compiler(doctor *d) {
    char found[160];
    int64_t start = tw_now_ns();
    if (tw_cpu_compiler_open() != TW_OK) {
        tell(
            d, BAD, "compiler", tw_error_message(),
            "put libtilewright-llvm.so beside the library or name it in TW_MODULE; without it only "
            "cached kernels and the reference run");
        return;
    }
    snprintf(found, sizeof found, "%s, opened in %s", tw_cpu_compiler(),
             out_ns((double)(tw_now_ns() - start)).text);
    tell(d, GOOD, "compiler", found, NULL);
}

/* From nothing to running code: generate, compile, link, map, call on every thread. */
static void check_kernels(doctor *d) {
    static const char remedy[] = "generated code must run: see the sentence above, and TW_DEBUG=5";
    char found[200];
    double gops = 0, gflops = 0;
    tw_threads *threads = NULL;
    tw_limits *limits = NULL;
    tw_problem f32, i8;
    tw_status status = tw_problem_parse("M=512,N=64,K=64,w=f32", true, &f32);
    if (status == TW_OK) status = tw_problem_parse("M=512,N=64,K=64,w=i8,a=i8", true, &i8);
    if (status == TW_OK) status = tw_threads_create(NULL, d->target.threads, &threads);
    if (status == TW_OK) status = tw_limits_create(&d->target, threads, &limits);
    if (status == TW_OK) status = tw_limits_gops(limits, &i8, &gops);
    if (status == TW_OK) status = tw_limits_gops(limits, &f32, &gflops);
    if (status != TW_OK) {
        tell(d, BAD, "kernels", tw_error_message(), remedy);
    } else {
        snprintf(found, sizeof found,
                 "generated, loaded and run: %.0f GOPS (%s), %.0f GFLOPS in f32", gops,
                 tw_limits_class(limits, &i8), gflops);
        tell(d, gops > 0 && gflops > 0 ? GOOD : BAD, "kernels", found,
             gops > 0 && gflops > 0 ? NULL : remedy);
    }
    tw_limits_destroy(limits);
    tw_threads_destroy(threads);
}

/* Only where there is one: most machines have none, and need none. */
static void check_system_cache(doctor *d, const tw_cache *user) {
    char found[4400];
    tw_cache *cache;
    tw_cache_counts counts;
    if (tw_cache_open_system(NULL, user, NULL, &cache) != TW_OK) return;
    if (*tw_cache_path(cache) && tw_cache_stats(cache, &counts) == TW_OK) {
        snprintf(found, sizeof found, "%s: %lld choices, %lld binaries, read-only",
                 tw_cache_path(cache), (long long)counts.choices, (long long)counts.binaries);
        tell(d, GOOD, "system", found, NULL);
    } else if (*tw_cache_path(cache)) {
        tell(d, BAD, "system",
             tw_cache_problem(cache) ? tw_cache_problem(cache) : tw_error_message(),
             "install the file anew, or set TW_CACHE_SYSTEM to another one, or to nothing");
    }
    tw_cache_close(cache);
}

static void check_cache(doctor *d) {
    char found[4400];
    tw_cache *cache;
    tw_cache_counts counts;
    if (tw_cache_open(NULL, TW_CACHE_WRITE, NULL, &cache) != TW_OK) {
        tell(d, BAD, "cache", tw_error_message(),
             "name another file in TW_CACHE, or mend this one's place and permissions; until then "
             "layers run, but nothing is remembered");
        check_system_cache(d, NULL);
        return;
    }
    if (tw_cache_stats(cache, &counts) == TW_OK) {
        snprintf(found, sizeof found, "%s: %lld choices, %lld binaries", tw_cache_path(cache),
                 (long long)counts.choices, (long long)counts.binaries);
        tell(d, GOOD, "cache", found, NULL);
    } else {
        tell(d, BAD, "cache", tw_error_message(), "tilewright cache verify tells more");
    }
    check_system_cache(d, cache);
    tw_cache_close(cache);
}

static void check_huge_pages(doctor *d) {
    char text[128] = "", found[160];
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (file) {
        if (!fgets(text, sizeof text, file)) *text = 0;
        fclose(file);
    }
    text[strcspn(text, "\n")] = 0;
    bool on = strstr(text, "[always]") || strstr(text, "[madvise]");
    snprintf(found, sizeof found, "transparent huge pages: %s",
             *text ? text : "not in this kernel");
    tell(d, on ? GOOD : ADVICE, "pages", found,
         on ? NULL
            : "weights from memory are read up to a quarter faster from huge pages: as root, echo "
              "madvise > /sys/kernel/mm/transparent_hugepage/enabled");
}

/* Variables that are set, and whether what they name is there. */
static void check_options(doctor *d) {
    const char *dump = tw_option_text(TW_OPT_TW_DUMP);
    char found[4400];
    struct stat info;
    if (*dump) {
        bool there = !stat(dump, &info);
        bool usable = there ? S_ISDIR(info.st_mode) && !access(dump, W_OK) : errno == ENOENT;
        snprintf(found, sizeof found, "TW_DUMP=%s%s", dump, there ? "" : " (to be created)");
        tell(d, usable ? GOOD : BAD, "hooks", found,
             usable ? NULL : "name a folder that can be written");
    }
    if (tw_option_int(TW_OPT_TW_DEBUG)) {
        snprintf(found, sizeof found, "TW_DEBUG=%s", tw_option_text(TW_OPT_TW_DEBUG));
        tell(d, GOOD, "hooks", found, NULL);
    }
    if (!*dump && !tw_option_int(TW_OPT_TW_DEBUG))
        tell(d, GOOD, "hooks", "no TW_DUMP, no TW_DEBUG: quiet", NULL);
}

static int run(const cli_args *args) {
    doctor d = {.json = args->json};
    check_cpu(&d);
    check_compiler(&d);
    if (d.has_target) check_kernels(&d);
    check_cache(&d);
    check_huge_pages(&d);
    check_options(&d);
    return d.failures ? CLI_FAILED : CLI_OK;
}

static const cli_option options[] = {CLI_ROW_JSON, CLI_ROW_HELP};

const cli_command cmd_doctor = {
    .name = "doctor",
    .words = "",
    .summary = "What works on this machine, and what to do about what does not",
    .about =
        "A line a check: ok, advice (it works, but could be better) or failed, with what to do.\n"
        "Exit code 1 when a check failed.",
    .examples = "  tilewright doctor\n"
                "  tilewright doctor --json",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
