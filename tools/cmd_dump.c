/* tilewright dump: the code of one kernel, as it was generated. */
#include <sodium.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/base/status.h"
#include "src/core/act.h"
#include "tools/commands.h"
#include "tools/input.h"
#include "tools/out.h"
#include "tools/outfile.h"

static tw_status write_file(const char *path, const tw_str *text) {
    tw_file file;
    TW_TRY(outfile_open(path, TW_FILE_STREAM, &file));
    tw_status status = tw_file_write(&file, text->text, text->size);
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

typedef struct dump {
    const cli_args *args;
    tw_context *context;
    tw_problem problem;
    tw_code_kind kind;
    tw_decision decision;
    tw_str code; /* owned */
} dump;

/* The code of what the plan decides, built anew whatever the cache holds. */
static tw_status generate(dump *d, const tw_plan_request *request) {
    tw_problem problem = tw_kernel_problem(&d->problem);
    tw_plan_request complete = *request;
    complete.problem = &problem;
    /* Without an M the config is one of some bucket's, and which does not matter. */
    for (int bucket = TW_BUCKETS - 1; !d->problem.M && bucket >= 0; bucket--) {
        problem.M = tw_bucket_rows(bucket);
        if (!request->tmpl->reject(&d->context->target, &problem, request->config)) break;
    }
    TW_TRY(tw_plan_decide(d->context, &complete, &d->decision));
    if (!d->decision.tmpl)
        return tw_fail(TW_UNSUPPORTED,
                       "dump: no kernel takes this problem; tilewright plan says why");
    return tw_template_compile(d->decision.tmpl, &problem, &d->decision.config, &d->context->target,
                               d->kind, &d->code);
}

static json_t *base64(const tw_str *code) {
    enum { VARIANT = sodium_base64_VARIANT_ORIGINAL };
    size_t room = sodium_base64_encoded_len(code->size, VARIANT);
    char *text = malloc(room);
    if (text) sodium_bin2base64(text, room, (const unsigned char *)code->text, code->size, VARIANT);
    json_t *value = text ? json_string(text) : NULL;
    free(text);
    return value;
}

/* What it is and, unless that went to a file, the code itself. */
static void print_json(const dump *d) {
    static const char *const kinds[] = {
        [TW_CODE_OBJECT] = "object",
        [TW_CODE_IR] = "ir",
        [TW_CODE_ASM] = "asm",
        [TW_CODE_TRACE] = "trace",
    };
    tw_str problem = {0}, config = {0};
    tw_problem_text(&d->problem, &problem);
    tw_config_text(&d->decision.config, &config);
    json_t *record =
        json_pack("{s:s,s:s,s:s,s:i,s:s,s:s,s:I}", "problem", tw_str_text(&problem), "device",
                  d->args->words[0], "kernel", d->decision.tmpl->name, "version",
                  (int)d->decision.tmpl->version, "config", tw_str_text(&config), "kind",
                  kinds[d->kind], "bytes", (json_int_t)d->code.size);
    const char *field = d->args->out ? "out" : d->kind == TW_CODE_OBJECT ? "base64" : "text";
    json_t *value = d->args->out                ? out_json_text(d->args->out)
                    : d->kind == TW_CODE_OBJECT ? base64(&d->code)
                                                : json_stringn(d->code.text, d->code.size);
    if (json_object_set_new(record, field, value)) {
        json_decref(record);
        record = NULL; /* which out_json() reports */
    }
    out_json(record);
    tw_str_free(&problem);
    tw_str_free(&config);
}

static tw_status deliver(const dump *d) {
    if (d->args->out) TW_TRY(write_file(d->args->out, &d->code));
    if (d->args->json)
        print_json(d);
    else if (!d->args->out)
        out_bytes(d->code.text, d->code.size);
    return TW_OK;
}

static int run(const cli_args *args) {
    static const tw_context_setup setup = {.access = TW_CACHE_USE, .foreign = true};
    dump d = {.args = args};
    tw_config config;
    /* Code does not depend on M, only the choice of a config does. */
    int code = input_problem(args->words[1], !args->config, &d.problem);
    if (!code) code = kind_of(args, &d.kind);
    if (!code && d.kind == TW_CODE_OBJECT && !args->out && !args->json && isatty(STDOUT_FILENO)) {
        out_error("dump: an object on a terminal; redirect it, or name a file with --out");
        code = CLI_USAGE;
    }
    if (!code) code = input_context(args->words[0], args, TW_MODE_DEFAULT, &setup, &d.context);
    if (code) return code;

    tw_plan_request request = tw_plan_ask(d.context, &d.problem);
    code = input_forced(args, &request, &config);
    if (!code) {
        tw_status status = generate(&d, &request);
        if (status == TW_OK) status = deliver(&d);
        if (status != TW_OK) code = cli_failed();
    }
    tw_str_free(&d.code);
    tw_context_destroy(d.context);
    return code;
}

static const cli_option options[] = {
    CLI_ROW("--source", FLAG, source, "", "the generated source: on a CPU the same as --ir"),
    CLI_ROW("--ir", FLAG, ir, "", "LLVM IR"),
    CLI_ROW("--asm", FLAG, assembly, "", "assembly"),
    CLI_ROW("--object", FLAG, object, "", "the relocatable object, as the cache keeps it"),
    CLI_ROW("--trace", FLAG, trace, "", "the vocabulary's calls; needs no LLVM"),
    CLI_ROW("--out", NAME, out, "FILE",
            "write there instead of to standard output: whole or not at all, or to a device"),
    CLI_ROW_KERNEL,
    CLI_ROW_CONFIG,
    CLI_ROW_PLAN_THREADS,
    CLI_ROW("--json", FLAG, json, "",
            "one JSON object, with the code in text, an object in base64"),
    CLI_ROW_HELP,
};

const cli_command cmd_dump = {
    .name = "dump",
    .words = "DEV PROBLEM",
    .summary = "The generated code of what would run: IR, assembly, object or trace",
    .about =
        "The same arguments give the same bytes, on every machine.  DEV may be a target that this\n"
        "CPU cannot run.  M may be left out where --kernel and --config are given.  With --out, "
        "--json\n"
        "tells the file and its size.",
    .examples =
        "  tilewright dump cpu M=64,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=i8 --asm\n"
        "  tilewright dump cpu:avx512vnni M=1,N=576,K=576,w=i8,a=i8 --object --out kernel.o\n"
        "  tilewright dump cpu N=64,K=64,w=u4,g=32,a=i8 --kernel cpu.int_gemm \\\n"
        "      --config \"mm4 mn16 bm64 bn64\" --ir",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
