/* Options and arguments of one command, by its table. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/out.h"

/* ---- values ---------------------------------------------------------------------------------- */

/* Digits alone, 1 to 2^31-1; 0 for anything else. */
static int64_t parse_count(const char *text, size_t size) {
    int64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        if (!isdigit((unsigned char)text[i])) return 0;
        value = value * 10 + (text[i] - '0');
        if (value > INT32_MAX) return 0;
    }
    return value;
}

static bool parse_sizes(const char *text, cli_sizes *out) {
    *out = (cli_sizes){0};
    for (bool more = true; more;) {
        size_t size = strcspn(text, ",");
        int64_t value = parse_count(text, size);
        if (!value || out->count == CLI_MAX_SIZES) return false;
        out->at[out->count++] = value;
        more = text[size];
        text += size + more;
    }
    return true;
}

/* Digits, with a point among them or none: what strtod takes beyond that is a slip of the hand. */
static const char *skip_decimal(const char *text) {
    static const char digits[] = "0123456789";
    size_t whole = strspn(text, digits), fraction = 0;
    if (whole && text[whole] == '.') fraction = strspn(text + whole + 1, digits);
    return text + whole + (fraction ? 1 + fraction : 0);
}

/* 0 for text that is no positive time, or more than anybody waits for. */
static double parse_seconds(const char *text) {
    const double most = 1000.0 * 3600;

    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"m", 60}, {"h", 3600}};
    const char *end = skip_decimal(text);
    if (end == text) return 0;
    double value = strtod(text, NULL);
    for (size_t i = 0; i < TW_COUNT(units); i++)
        if (!strcmp(end, units[i].name) && value * units[i].seconds <= most)
            return value * units[i].seconds;
    return 0;
}

/* Which of the words in "cold|hot" it is, from 1; 0 for none. */
static int parse_choice(const char *words, const char *text) {
    for (int i = 1; *words; i++) {
        size_t size = strcspn(words, "|");
        if (strlen(text) == size && !memcmp(words, text, size)) return i;
        words += size + (words[size] == '|');
    }
    return 0;
}

static bool parse_value(const cli_option *option, const char *text, cli_args *out) {
    void *field = (char *)out + option->offset;
    switch (option->kind) {
    case CLI_FLAG: return *(bool *)field = true;
    case CLI_TEXT: *(const char **)field = text; return true;
    case CLI_NAME: *(const char **)field = text; return *text;
    case CLI_COUNT: return (*(int64_t *)field = parse_count(text, strlen(text))) > 0;
    case CLI_SECONDS: return (*(double *)field = parse_seconds(text)) > 0;
    case CLI_SIZES: return parse_sizes(text, field);
    case CLI_CHOICE: return (*(int *)field = parse_choice(option->value, text)) > 0;
    }
    return false;
}

static const char *rule_of(const cli_option *option) {
    switch (option->kind) {
    case CLI_NAME: return "a name";
    case CLI_COUNT: return "a positive integer below 2^31";
    case CLI_SECONDS: return "a time such as 30s, 500ms or 2m, 1000h at most";
    case CLI_SIZES: return "at most 32 positive integers by commas, such as 1,16,512";
    case CLI_CHOICE: return option->value;
    default: return "a value";
    }
}

/* ---- words ----------------------------------------------------------------------------------- */

/* The i-th name of "DEV PROBLEM [OUT]" with its size; NULL past the end. */
static const char *word_name(const char *words, int i, size_t *size) {
    for (; *words; i--) {
        *size = strcspn(words, " ");
        if (!i) return words;
        words += *size + (words[*size] == ' ');
    }
    return NULL;
}

static int usage_error(const cli_command *command) {
    out_note("see: tilewright %s --help", command->name);
    return CLI_USAGE;
}

static int add_word(const cli_command *command, const char *text, cli_args *out) {
    size_t size;
    const char *name = word_name(command->words, out->word_count, &size);
    if (!name) {
        out_error("%s: unexpected argument \"%s\"", command->name, text);
        return usage_error(command);
    }
    if (!*text) {
        int bracket = *name == '[';
        out_error("%s: %.*s: \"\", must not be empty", command->name, (int)size - 2 * bracket,
                  name + bracket);
        return usage_error(command);
    }
    out->words[out->word_count++] = text;
    return CLI_OK;
}

/* ---- the command line ------------------------------------------------------------------------ */

/* The row that `text` names, up to '=' if there is one; NULL for none. */
static const cli_option *find_option(const cli_command *command, const char *text) {
    size_t size = strcspn(text, "=");
    for (int i = 0; i < command->option_count; i++) {
        const char *name = command->options[i].name;
        if (strlen(name) == size && !memcmp(name, text, size)) return &command->options[i];
    }
    return NULL;
}

/* One option at text[i]; advances *i past a value that is an argument of its own. */
static int add_option(const cli_command *command, int count, char **text, int *i, cli_args *out) {
    const char *word = !strcmp(text[*i], "-h") ? "--help" : text[*i];
    const cli_option *option = find_option(command, word);
    const char *equals = strchr(word, '='), *value = equals ? equals + 1 : NULL;
    if (!option) {
        out_error("%s: unknown option \"%s\"", command->name, word);
        return usage_error(command);
    }
    if (option->kind == CLI_FLAG && value) {
        out_error("%s: %s takes no value, but \"%s\" was given", command->name, option->name,
                  value);
        return usage_error(command);
    }
    if (option->kind != CLI_FLAG && !value) {
        if (*i + 1 == count) {
            out_error("%s: %s needs %s", command->name, option->name, rule_of(option));
            return usage_error(command);
        }
        value = text[++*i];
    }
    if (parse_value(option, value, out)) return CLI_OK;
    out_error("%s: %s: \"%s\", expected %s", command->name, option->name, value, rule_of(option));
    return usage_error(command);
}

int cli_parse(const cli_command *command, int count, char **text, cli_args *out) {
    bool options = true;
    *out = (cli_args){0};
    for (int i = 0; i < count; i++) {
        bool option = options && text[i][0] == '-' && text[i][1];
        if (options && !strcmp(text[i], "--")) {
            options = false;
            continue;
        }
        int code =
            option ? add_option(command, count, text, &i, out) : add_word(command, text[i], out);
        if (code) return code;
    }
    size_t size;
    const char *name = word_name(command->words, out->word_count, &size);
    if (out->help || !name || *name == '[') return CLI_OK;
    out_error("%s: %.*s is missing", command->name, (int)size, name);
    return usage_error(command);
}

/* ---- help ------------------------------------------------------------------------------------ */

void cli_help(const cli_command *command) {
    out_line("usage: tilewright %s%s%s%s", command->name, *command->words ? " " : "",
             command->words, command->option_count ? " [OPTION...]" : "");
    out_line("\n%s.", command->summary);
    if (*command->about) out_line("\n%s", command->about);
    out_line("\noptions:");
    out_table table;
    out_table_begin(&table, "ll", NULL);
    for (int i = 0; i < command->option_count; i++) {
        const cli_option *option = &command->options[i];
        out_table_row(&table, "  %s%s%s\t%s", option->name, *option->value ? " " : "",
                      option->value, option->help);
    }
    out_table_end(&table);
    out_line("\nexamples:\n%s", command->examples);
}

int cli_failed(void) {
    out_error("%s", tw_error_message());
    return CLI_FAILED;
}

int cli_bad(const char *what) {
    out_error("%s: %s", what, tw_error_message());
    return CLI_USAGE;
}
