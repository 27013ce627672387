/* tilewright list: the rows of the library's tables. */
#include <string.h>

#include "src/backend/backend.h"
#include "src/base/options.h"
#include "src/core/dtype.h"
#include "src/quant/recipe.h"
#include "templates/template.h"
#include "tools/commands.h"
#include "tools/out.h"
#include "tools/schemes.h"

/* Each lister prints its table, as text or as JSON. */

static void list_kernels(bool json) {
    out_table table;
    if (!json) out_table_begin(&table, "lrll", "kernel\tversion\tlayout\ttunables");
    for (int i = 0; tw_template_row(i); i++) {
        const tw_template *t = tw_template_row(i);
        json_t *tunables = json_array();
        tw_str text = {0};
        for (int a = 0; a < t->axes; a++) {
            const tw_axis *axis = &t->space[a];
            const char *field = tw_tunables[axis->tunable].field;
            json_array_append_new(tunables, json_string(field));
            tw_str_add(&text, "%s%s", a ? " " : "", field);
        }
        if (json)
            out_json(json_pack("{s:s,s:i,s:s,s:O}", "kernel", t->name, "version", (int)t->version,
                               "layout", t->layout->name, "tunables", tunables));
        else
            out_table_row(&table, "%s\t%u\t%s\t%s", t->name, t->version, t->layout->name,
                          tw_str_text(&text));
        json_decref(tunables);
        tw_str_free(&text);
    }
    if (!json) out_table_end(&table);
}

static void list_dtypes(bool json) {
    static const char *const kinds[] = {"none", "float", "int", "uint", "lut", "pair"};
    out_table table;
    if (!json) out_table_begin(&table, "lrlrr", "dtype\tbits\tkind\texponent\tmantissa");
    for (int i = 0; tw_dtype_row(i); i++) {
        const tw_dtype_info *d = tw_dtype_row(i);
        if (json)
            out_json(json_pack("{s:s,s:i,s:s,s:i,s:i}", "dtype", d->name, "bits", d->bits, "kind",
                               kinds[d->kind], "exponent_bits", d->exponent_bits, "mantissa_bits",
                               d->mantissa_bits));
        else
            out_table_row(&table, "%s\t%d\t%s\t%d\t%d", d->name, d->bits, kinds[d->kind],
                          d->exponent_bits, d->mantissa_bits);
    }
    if (!json) out_table_end(&table);
}

static void list_layouts(bool json) {
    out_table table;
    if (!json) out_table_begin(&table, "lr", "layout\tversion");
    for (int i = 0; tw_layout_row(i); i++) {
        const tw_layout *l = tw_layout_row(i);
        if (json)
            out_json(json_pack("{s:s,s:i}", "layout", l->name, "version", (int)l->version));
        else
            out_table_row(&table, "%s\t%u", l->name, l->version);
    }
    if (!json) out_table_end(&table);
}

static void list_schemes(bool json) {
    out_table table;
    if (!json) out_table_begin(&table, "lll", "scheme\tfields\twhere it comes from");
    for (int i = 0; named_scheme_row(i); i++) {
        const named_scheme *s = named_scheme_row(i);
        if (json)
            out_json(
                json_pack("{s:s,s:s,s:s}", "scheme", s->name, "fields", s->text, "from", s->from));
        else
            out_table_row(&table, "%s\t%s\t%s", s->name, s->text, s->from);
    }
    if (!json) out_table_end(&table);
}

static void list_recipes(bool json) {
    out_table table;
    if (!json) out_table_begin(&table, "llll", "recipe\tleaves open\tfixes\twhere it comes from");
    for (int i = 0; tw_recipe_at(i); i++) {
        const tw_recipe_row *r = tw_recipe_at(i);
        if (json)
            out_json(json_pack("{s:s,s:s,s:s,s:s}", "recipe", r->name, "open", r->open, "fixed",
                               r->fixed, "from", r->source));
        else
            out_table_row(&table, "%s\t%s\t%s\t%s", r->name, r->open, r->fixed, r->source);
    }
    if (!json) out_table_end(&table);
}

static void list_options(bool json) {
    out_table table;
    if (!json) out_table_begin(&table, "lll", "variable\tdefault\tmeaning");
    for (int i = 0; i < TW_OPT_COUNT; i++) {
        const tw_option_row *o = &tw_option_rows[i];
        if (json)
            out_json(json_pack("{s:s,s:s,s:o,s:s}", "option", o->name, "default", o->def, "value",
                               out_json_text(tw_option_text((tw_option)i)), "help", o->help));
        else
            out_table_row(&table, "%s\t%s\t%s", o->name, o->def, o->help);
    }
    if (!json) out_table_end(&table);
}

static void list_targets(bool json) {
    static const char *const dots[] = {"multiply and add", "pmaddubsw", "vpdpbusd"};
    out_table table;
    if (!json)
        out_table_begin(&table, "lrrll", "target\tvector bytes\tregisters\tinteger dot\tthis CPU");
    for (int i = 0; i < TW_ISA_COUNT; i++) {
        const tw_isa_info *isa = &tw_isas[i];
        bool runs = tw_cpu_can_run((tw_isa)i);
        if (json)
            out_json(json_pack("{s:s,s:i,s:i,s:s,s:b}", "target", isa->name, "vector_bytes",
                               isa->vector_bytes, "vector_registers", isa->vector_registers,
                               "integer_dot", dots[isa->dot], "runs_here", runs));
        else
            out_table_row(&table, "%s\t%d\t%d\t%s\t%s", isa->name, isa->vector_bytes,
                          isa->vector_registers, dots[isa->dot],
                          runs ? "runs it" : "generates it only");
    }
    if (!json) out_table_end(&table);
}

static void list_tunables(bool json) {
    out_table table;
    if (!json) out_table_begin(&table, "lll", "tunable\ttag\tmeaning");
    for (int i = 0; i < TW_TUNABLE_COUNT; i++) {
        const tw_tunable *t = &tw_tunables[i];
        if (json)
            out_json(json_pack("{s:s,s:s,s:s}", "tunable", t->field, "tag", t->tag, "meaning",
                               t->meaning));
        else
            out_table_row(&table, "%s\t%s\t%s", t->field, t->tag, t->meaning);
    }
    if (!json) out_table_end(&table);
}

static const struct {
    const char *name;
    void (*list)(bool json);
} lists[] = {
    {"kernels", list_kernels}, {"dtypes", list_dtypes},     {"layouts", list_layouts},
    {"schemes", list_schemes}, {"recipes", list_recipes},   {"options", list_options},
    {"targets", list_targets}, {"tunables", list_tunables},
};

static int run(const cli_args *args) {
    for (size_t i = 0; i < TW_COUNT(lists); i++)
        if (!strcmp(lists[i].name, args->words[0])) {
            lists[i].list(args->json);
            return CLI_OK;
        }
    out_error("list: \"%s\", expected %s", args->words[0], cmd_list.words);
    return CLI_USAGE;
}

static const cli_option options[] = {CLI_ROW_JSON, CLI_ROW_HELP};

const cli_command cmd_list = {
    .name = "list",
    .words = "kernels|dtypes|layouts|schemes|recipes|options|targets|tunables",
    .summary = "The rows of one of the library's tables",
    .about = "kernels   kernel families, with the tunables of their search space\n"
             "dtypes    code types of weights, scales and activations\n"
             "layouts   physical packings of weights\n"
             "schemes   well-known formats as the fields w, g, s, z, a, fpmath\n"
             "recipes   named ways to quantize float weights, as field=value lists\n"
             "options   environment variables\n"
             "targets   instruction sets: DEV is cpu:TARGET\n"
             "tunables  the words of a config",
    .examples = "  tilewright list kernels\n"
                "  tilewright list targets --json",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
