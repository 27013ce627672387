/* tilewright dump: the code of one kernel, as it was generated. */
#include <unistd.h>

#include "src/base/status.h"
#include "tools/commands.h"
#include "tools/input.h"
#include "tools/out.h"
#include "tools/outfile.h"

static tw_status write_file(const char *path, const tw_str *text) {
    outfile file;
    TW_TRY(outfile_open(path, OUTFILE_STREAM, &file));
    tw_status status = outfile_write(&file, text->text, text->size);
    if (status == TW_OK) return outfile_finish(&file);
    outfile_discard(&file);
    return status;
}

static int kind_of(const cli_args *args, tw_code_kind *out) {
    const struct {
        bool given;
        tw_code_kind kind;
    } kinds[] = {{args->source || args->ir, TW_CODE_IR},
                 {args->assembly, TW_CODE_ASM},
                 {args->object, TW_CODE_OBJECT},
                 {args->trace, TW_CODE_TRACE}};
    int given = 0;
    for (size_t i = 0; i < TW_COUNT(kinds); i++)
        if (kinds[i].given) {
            *out = kinds[i].kind;
            given++;
        }
    if (given == 1) return CLI_OK;
    out_error("dump: expected one of --source, --ir, --asm, --object, --trace");
    return CLI_USAGE;
}

/* The code of what the plan decides, built anew whatever the cache holds. */
static tw_status generate(tw_context *context, const tw_plan_request *request, tw_code_kind kind,
                          tw_str *out) {
    tw_decision decision;
    tw_problem problem = *request->problem;
    tw_plan_request complete = *request;
    complete.problem = &problem;
    /* Without an M the config is one of some bucket's, and which does not matter. */
    for (int bucket = TW_BUCKETS - 1; !request->problem->M && bucket >= 0; bucket--) {
        problem.M = tw_bucket_rows(bucket);
        if (!request->tmpl->reject(&context->target, &problem, request->config)) break;
    }
    request = &complete;
    TW_TRY(tw_plan_decide(context, request, &decision));
    if (!decision.tmpl)
        return tw_fail(TW_UNSUPPORTED,
                       "dump: no kernel takes this problem; tilewright plan says why");
    return tw_template_compile(decision.tmpl, request->problem, &decision.config, &context->target,
                               kind, out);
}

static int run(const cli_args *args) {
    static const tw_context_setup setup = {.access = TW_CACHE_USE, .foreign = true};
    tw_problem problem;
    tw_context *context;
    tw_config config;
    tw_code_kind kind;
    tw_str text = {0};
    /* Code does not depend on M, only the choice of a config does. */
    int code = input_problem(args->words[1], !args->config, &problem);
    if (!code) code = kind_of(args, &kind);
    if (!code && kind == TW_CODE_OBJECT && !args->out && isatty(STDOUT_FILENO)) {
        out_error("dump: an object on a terminal; redirect it, or name a file with --out");
        code = CLI_USAGE;
    }
    if (!code) code = input_context(args->words[0], args, TW_MODE_DEFAULT, &setup, &context);
    if (code) return code;

    tw_plan_request request = tw_plan_ask(context, &problem);
    code = input_forced(args, &request, &config);
    if (!code) {
        tw_status status = generate(context, &request, kind, &text);
        if (status == TW_OK && args->out) status = write_file(args->out, &text);
        if (status != TW_OK) code = cli_failed();
        if (status == TW_OK && !args->out) out_bytes(text.text, text.size);
    }
    tw_str_free(&text);
    tw_context_destroy(context);
    return code;
}

static const cli_option options[] = {
    CLI_ROW("--source", FLAG, source, "", "the generated source: on a CPU the same as --ir"),
    CLI_ROW("--ir", FLAG, ir, "", "LLVM IR"),
    CLI_ROW("--asm", FLAG, assembly, "", "assembly"),
    CLI_ROW("--object", FLAG, object, "", "the relocatable object, as the cache keeps it"),
    CLI_ROW("--trace", FLAG, trace, "", "the vocabulary's calls; needs no LLVM"),
    CLI_ROW("--out", TEXT, out, "FILE",
            "write there instead of to standard output: whole or not at all, or to a device"),
    CLI_ROW_KERNEL,
    CLI_ROW_CONFIG,
    CLI_ROW_THREADS,
    CLI_ROW_HELP,
};

const cli_command cmd_dump = {
    .name = "dump",
    .words = "DEV PROBLEM",
    .summary = "The generated code of what would run: IR, assembly, object or trace",
    .about =
        "The same arguments give the same bytes, on every machine.  DEV may be a target that this\n"
        "CPU cannot run.  M may be left out where --kernel and --config are given.",
    .examples =
        "  tilewright dump cpu M=64,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=i8 --asm\n"
        "  tilewright dump cpu:avx512vnni M=1,N=576,K=576,w=i8,a=i8 --object --out kernel.o\n"
        "  tilewright dump cpu N=64,K=64,w=u4,g=32,a=i8 --kernel cpu.int_gemm \\\n"
        "      --config \"mm4 mn16 bm64 bn64\" --ir",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
