/* tilewright: the command table and what every command line has in common. */
#include <signal.h>
#include <string.h>

#include "src/base/options.h"
#include "src/base/status.h"
#include "tools/cli.h"
#include "tools/commands.h"
#include "tools/out.h"

static const cli_command *const commands[] = {
    &cmd_devices, &cmd_list,     &cmd_shapes,     &cmd_plan,  &cmd_dump,   &cmd_tune, &cmd_bench,
    &cmd_verify,  &cmd_quantize, &cmd_dequantize, &cmd_cache, &cmd_doctor, &cmd_demo,
};

static const cli_command *find(const char *name) {
    for (size_t i = 0; i < TW_COUNT(commands); i++)
        if (!strcmp(commands[i]->name, name)) return commands[i];
    return NULL;
}

static int overview(void) {
    out_table table;
    out_line("usage: tilewright COMMAND ...      quantized linear layers, generated, tuned and "
             "cached\n");
    out_table_begin(&table, "ll", NULL);
    for (size_t i = 0; i < TW_COUNT(commands); i++)
        out_table_row(&table, "  %s\t%s", commands[i]->name, commands[i]->summary);
    out_table_end(&table);
    out_line(
        "\nDEV      cpu, or cpu:TARGET to force one (tilewright list targets)\n"
        "PROBLEM  field=value by commas: M=16,N=4096,K=4096,w=u4,g=32,s=f16,z=value,a=i8g32\n"
        "MODEL    a .gguf, a .safetensors file or folder, a config.json, a text file of problems\n"
        "@FILE    a text file of problems, one a line\n\n"
        "tilewright COMMAND --help shows arguments, options and examples; --json gives one object\n"
        "per line.  Exit codes: 0 ok, 1 failed, 2 usage.  Variables: tilewright list options.");
    return CLI_OK;
}

static int run(const cli_command *command, int count, char **text) {
    cli_args args;
    int code = cli_parse(command, count, text, &args);
    if (code) return code;
    if (args.help) {
        cli_help(command);
        return CLI_OK;
    }
    if (tw_options_check() == TW_OK) return command->run(&args);
    out_error("%s", tw_error_message());
    return CLI_USAGE;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    const cli_command *command = find(name);
    /* A limit on file sizes is then an error of write(), as a full disk is. */
    signal(SIGXFSZ, SIG_IGN);
    if (command) return out_finish(run(command, argc - 2, argv + 2));
    if (!strcmp(name, "--version")) {
        out_line("tilewright %d.%d.%d", TW_VERSION_MAJOR, TW_VERSION_MINOR, TW_VERSION_PATCH);
        return out_finish(CLI_OK);
    }
    if (!strcmp(name, "help") && argc > 2 && (command = find(argv[2]))) {
        cli_help(command);
        return out_finish(CLI_OK);
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
        return out_finish(overview());
    if (*name)
        out_error("unknown command \"%s\"; tilewright --help lists them", name);
    else
        out_error("a command is missing; tilewright --help lists them");
    return CLI_USAGE;
}
