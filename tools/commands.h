/* One command a file: cmd_NAME.c defines cmd_NAME. */
#ifndef TW_TOOLS_COMMANDS_H
#define TW_TOOLS_COMMANDS_H

#include "tools/cli.h"

extern const cli_command cmd_devices, cmd_list, cmd_shapes, cmd_plan, cmd_dump, cmd_tune, cmd_bench,
    cmd_verify, cmd_quantize, cmd_dequantize, cmd_cache, cmd_doctor, cmd_demo;

#endif
