/* tilewright devices: what there is to generate for. */
#include "src/backend/backend.h"
#include "tools/commands.h"
#include "tools/input.h"
#include "tools/out.h"

static int run(const cli_args *args) {
    tw_target target;
    int code = input_target("cpu", args, &target);
    if (code) return code;
    const char *isa = tw_target_isa(&target)->name;
    if (args->json) {
        out_json(json_pack("{s:s,s:s,s:s,s:i,s:I,s:I,s:I}", "device", "cpu", "name", target.model,
                           "target", isa, "threads", target.threads, "l1_bytes", target.l1_bytes,
                           "l2_bytes", target.l2_bytes, "l3_bytes", target.l3_bytes));
        return CLI_OK;
    }
    out_table table;
    out_table_begin(&table, "lllrrrr", "device\tname\ttarget\tthreads\tL1\tL2\tL3");
    out_table_row(&table, "cpu\t%s\t%s\t%d\t%lld KiB\t%lld KiB\t%lld KiB", target.model, isa,
                  target.threads, (long long)target.l1_bytes >> 10,
                  (long long)target.l2_bytes >> 10, (long long)target.l3_bytes >> 10);
    out_table_end(&table);
    return CLI_OK;
}

static const cli_option options[] = {CLI_ROW_PLAN_THREADS, CLI_ROW_JSON, CLI_ROW_HELP};

const cli_command cmd_devices = {
    .name = "devices",
    .words = "",
    .summary = "The devices of this machine, with the facts that decide tiles",
    .about = "tilewright list targets shows which instruction sets can be forced as cpu:TARGET.",
    .examples = "  tilewright devices\n"
                "  tilewright devices --json",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
