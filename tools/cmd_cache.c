/* tilewright cache: what the cache holds, whether it is whole, and what may go. */
#include <string.h>

#include "cache/cache.h"
#include "src/base/status.h"
#include "src/plan.h"
#include "templates/template.h"
#include "tools/commands.h"
#include "tools/out.h"

static tw_status stats_of(tw_cache *cache, const tw_cache *system, const cli_args *args) {
    tw_cache_counts c;
    TW_TRY(tw_cache_stats(cache, &c));
    if (args->json) {
        out_json(json_pack("{s:o,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:s,s:o}", "path",
                           out_json_text(tw_cache_path(cache)), "schema", c.schema, "devices",
                           c.devices, "choices", c.choices, "undecided", c.undecided, "trials",
                           c.trials, "failed_trials", c.failed_trials, "binaries", c.binaries,
                           "binary_bytes", c.binary_bytes, "file_bytes", c.file_bytes, "free_bytes",
                           c.free_bytes, "oldest", c.oldest, "newest", c.newest, "system",
                           out_json_text(tw_cache_path(system))));
        return TW_OK;
    }
    out_line("%s (schema %d)", tw_cache_path(cache), c.schema);
    out_table table;
    out_table_begin(&table, "rl", NULL);
    out_table_row(&table, "%lld\tdevice%s", (long long)c.devices, c.devices == 1 ? "" : "s");
    out_table_row(&table, "%lld\tchoice%s, %lld more begun", (long long)c.choices,
                  c.choices == 1 ? "" : "s", (long long)c.undecided);
    out_table_row(&table, "%lld\ttrial%s, %lld of them failed", (long long)c.trials,
                  c.trials == 1 ? "" : "s", (long long)c.failed_trials);
    out_table_row(&table, "%lld\t%s of %lld KiB", (long long)c.binaries,
                  c.binaries == 1 ? "binary" : "binaries", (long long)c.binary_bytes >> 10);
    out_table_row(&table, "%lld\tKiB on disk, %lld of them free", (long long)c.file_bytes >> 10,
                  (long long)c.free_bytes >> 10);
    out_table_end(&table);
    if (*c.oldest) out_line("from %s to %s", c.oldest, c.newest);
    if (*tw_cache_path(system))
        out_line("below it %s, read-only%s", tw_cache_path(system),
                 tw_cache_problem(system) ? ", which cannot be used" : "");
    return TW_OK;
}

static tw_status stats(tw_cache *cache, const cli_args *args) {
    tw_cache *system;
    TW_TRY(tw_cache_open_system(NULL, cache, NULL, &system));
    tw_status status = stats_of(cache, system, args);
    tw_cache_close(system);
    return status;
}

/* ---- list ------------------------------------------------------------------------------------ */

static bool list_row(void *user, const tw_cache_row *row) {
    static const char *const kinds[] = {"device", "choice", "trial", "binary"};
    if (*(const bool *)user) {
        out_json(json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:s,s:s,s:s,s:I,s:f,s:f,s:f,s:s,s:s,s:s}",
                           "kind", kinds[row->kind], "key", row->key, "digest", row->digest,
                           "device", row->device, "kernel", row->kernel, "version",
                           row->kernel_version, "config", row->config, "outcome", row->outcome,
                           "reason", row->reason, "bytes", row->bytes, "median_ns", row->median_ns,
                           "spread_ns", row->spread_ns, "error", row->error, "created",
                           row->created, "used", row->used, "library", row->library));
        return true;
    }
    out_line("%s", row->key);
    switch (row->kind) {
    case TW_CACHE_DEVICES: break;
    case TW_CACHE_CHOICES:
        out_line("    %s/%lld %s: %s +- %s, nmse %.2g, %s by %s", row->kernel,
                 (long long)row->kernel_version, row->config, out_ns(row->median_ns).text,
                 out_ns(row->spread_ns).text, row->error, row->created, row->library);
        break;
    case TW_CACHE_TRIALS:
        out_line("    %s/%lld %s: %s%s", row->kernel, (long long)row->kernel_version, row->config,
                 *row->reason ? "failed: " : out_ns(row->median_ns).text, row->reason);
        break;
    case TW_CACHE_BINARIES:
        out_line("    %lld bytes, %s, last used %s", (long long)row->bytes, row->created,
                 row->used);
        break;
    }
    return true;
}

static tw_status list(tw_cache *cache, const cli_args *args) {
    bool json = args->json;
    if (args->devices) TW_TRY(tw_cache_list(cache, TW_CACHE_DEVICES, list_row, &json));
    if (args->trials) TW_TRY(tw_cache_list(cache, TW_CACHE_TRIALS, list_row, &json));
    if (args->binaries) TW_TRY(tw_cache_list(cache, TW_CACHE_BINARIES, list_row, &json));
    if (args->devices || args->trials || args->binaries) return TW_OK;
    return tw_cache_list(cache, TW_CACHE_CHOICES, list_row, &json);
}

/* ---- verify, prune --------------------------------------------------------------------------- */

static void defect(void *user, const char *sentence) {
    if (*(const bool *)user)
        out_json(json_pack("{s:o}", "defect", out_json_text(sentence)));
    else
        out_line("%s", sentence);
}

static tw_status verify(tw_cache *cache, const cli_args *args) {
    int64_t defects;
    bool json = args->json;
    TW_TRY(tw_cache_verify(cache, defect, &json, &defects));
    if (json)
        out_json(json_pack("{s:o,s:I}", "path", out_json_text(tw_cache_path(cache)), "defects",
                           defects));
    else
        out_line("%s: %lld defect%s", tw_cache_path(cache), (long long)defects,
                 defects == 1 ? "" : "s");
    if (!defects) return TW_OK;
    return tw_fail(
        TW_CACHE,
        "%s: has defects; damaged rows count as missing and are made again, but where the "
        "database itself is damaged nothing can be stored: move it away then",
        tw_cache_path(cache));
}

/* Rows of kernels that this build does not have are of use to nobody with it; but what hosts
 * register is not known here. */
static bool is_current(void *user, const char *kernel, uint32_t version) {
    (void)user;
    if (strcmp(kernel, tw_origin_text(TW_ORIGIN_REGISTERED)) == 0) return true;
    const tw_template *t = tw_template_find(kernel);
    return t && t->version == version;
}

static tw_status prune(tw_cache *cache, const cli_args *args) {
    tw_cache_prune_spec spec = {args->unused_days, args->max_mb << 20, is_current, NULL};
    tw_cache_pruned pruned;
    TW_TRY(tw_cache_prune(cache, &spec, &pruned));
    if (args->json)
        out_json(json_pack("{s:o,s:I,s:I,s:I,s:I}", "path", out_json_text(tw_cache_path(cache)),
                           "choices", pruned.choices, "trials", pruned.trials, "binaries",
                           pruned.binaries, "bytes", pruned.bytes));
    else
        out_line("%s: dropped %lld choices, %lld trials, %lld binaries; %lld KiB less",
                 tw_cache_path(cache), (long long)pruned.choices, (long long)pruned.trials,
                 (long long)pruned.binaries, (long long)pruned.bytes >> 10);
    return TW_OK;
}

static const struct {
    const char *name;
    tw_cache_access access;
    tw_status (*run)(tw_cache *cache, const cli_args *args);
} actions[] = {
    {"stats", TW_CACHE_READ, stats},
    {"list", TW_CACHE_READ, list},
    {"verify", TW_CACHE_READ, verify},
    {"prune", TW_CACHE_WRITE, prune},
};

static int run(const cli_args *args) {
    size_t i = 0;
    while (i < TW_COUNT(actions) && strcmp(actions[i].name, args->words[0])) i++;
    if (i == TW_COUNT(actions)) {
        out_error("cache: \"%s\", expected %s", args->words[0], cmd_cache.words);
        return CLI_USAGE;
    }
    const char *name = actions[i].name;
    bool lists = args->trials || args->binaries || args->devices;
    bool prunes = args->unused_days || args->max_mb;
    if ((lists && strcmp(name, "list")) || (prunes && strcmp(name, "prune"))) {
        out_error("cache %s: takes no option of cache %s", name, lists ? "list" : "prune");
        return CLI_USAGE;
    }
    tw_cache *cache;
    if (tw_cache_open(NULL, actions[i].access, NULL, &cache) != TW_OK) return cli_failed();
    tw_status status = actions[i].run(cache, args);
    tw_cache_close(cache);
    return status == TW_OK ? CLI_OK : cli_failed();
}

static const cli_option options[] = {
    CLI_ROW("--trials", FLAG, trials, "", "list: every measurement"),
    CLI_ROW("--binaries", FLAG, binaries, "", "list: machine code"),
    CLI_ROW("--devices", FLAG, devices, "", "list: devices that measured"),
    CLI_ROW("--unused-days", COUNT, unused_days, "N",
            "prune: what had no hit for more than N days"),
    CLI_ROW("--max-mb", COUNT, max_mb, "N", "prune: the longest unused, until N MiB hold the rest"),
    CLI_ROW_JSON,
    CLI_ROW_HELP,
};

const cli_command cmd_cache = {
    .name = "cache",
    .words = "stats|list|verify|prune",
    .summary = "What the cache holds, whether it is whole, and what may go",
    .about = "stats   counts and sizes\n"
             "list    the decided choices, or what the options name\n"
             "verify  every blob and key against its digest, then the database itself\n"
             "prune   rows of kernels that this version does not have, and what the options name\n"
             "The file is $TW_CACHE, else tilewright/cache.db in $XDG_CACHE_HOME or $HOME/.cache.\n"
             "Layers find what it lacks in $TW_CACHE_SYSTEM, which no command changes.",
    .examples = "  tilewright cache stats\n"
                "  tilewright cache list --trials --json\n"
                "  tilewright cache prune --unused-days 90 --max-mb 64",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
