/* Keys are one line each: readable in the sqlite3 shell, and every part is delimited, so that no
 * two different decisions can share a text. */
#include "src/core/key.h"

#include "src/base/status.h"

/* Free text: what could be taken for a delimiter is written as %XX. */
static void add_escaped(tw_str *out, const char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < ' ' || c > '~' || c == ';' || c == '=' || c == '|' || c == '%')
            tw_str_add(out, "%%%02X", c);
        else
            tw_str_add_bytes(out, text, 1);
    }
}

void tw_device_text(const tw_target *target, tw_str *out) {
    tw_str_add(out, "cpu;isa=%s;model=", tw_target_isa(target)->name);
    add_escaped(out, target->model);
    tw_str_add(out, ";l1=%lld;l2=%lld;l3=%lld;threads=%d", (long long)target->l1_bytes,
               (long long)target->l2_bytes, (long long)target->l3_bytes, target->threads);
}

static tw_status finish(tw_str *text, tw_key *out) {
    tw_status status = tw_str_ok(text);
    if (status != TW_OK) {
        tw_str_free(text);
        return status;
    }
    out->text = *text;
    tw_sha256_text(text->text, text->size, out->digest);
    return TW_OK;
}

static tw_status add_choice(const tw_problem *problem, int bucket, const tw_target *target,
                            tw_str *out) {
    if (bucket < 0 || bucket >= TW_BUCKETS)
        return tw_fail(TW_INTERNAL, "bucket: %d, must be from 0 to %d", bucket, TW_BUCKETS - 1);
    tw_problem rest = *problem;
    rest.M = 0;
    tw_str_add(out, "choice/%d | M<=%lld,", TW_KEY_VERSION, (long long)tw_bucket_rows(bucket));
    tw_problem_text(&rest, out);
    tw_str_add(out, " | ");
    tw_device_text(target, out);
    return TW_OK;
}

tw_status tw_choice_key(const tw_problem *problem, int bucket, const tw_target *target,
                        tw_key *out) {
    tw_str text = {0};
    TW_TRY(add_choice(problem, bucket, target, &text));
    return finish(&text, out);
}

tw_status tw_impl_key(const tw_problem *problem, int bucket, const tw_target *target,
                      const char *name, uint32_t version, tw_key *out) {
    tw_str text = {0};
    TW_TRY(add_choice(problem, bucket, target, &text));
    tw_str_add(&text, " | impl=");
    add_escaped(&text, name);
    tw_str_add(&text, "/%u", version);
    return finish(&text, out);
}

tw_status tw_binary_key(const tw_problem *problem, const char *kernel, uint32_t version,
                        const tw_config *config, const tw_target *target, const char *compiler,
                        tw_key *out) {
    tw_str text = {0};
    tw_problem rest = *problem;
    const tw_isa_info *isa = tw_target_isa(target);
    rest.M = 0;
    tw_str_add(&text, "binary/%d | ", TW_KEY_VERSION);
    tw_problem_text(&rest, &text);
    tw_str_add(&text, " | ");
    add_escaped(&text, kernel);
    tw_str_add(&text, "/%u | ", version);
    tw_config code = tw_config_code(config);
    tw_config_text(&code, &text);
    tw_str_add(&text, " | cpu;isa=%s;llvm=%s%s | ", isa->name, isa->llvm_cpu, isa->llvm_features);
    add_escaped(&text, compiler);
    return finish(&text, out);
}

void tw_key_free(tw_key *key) {
    tw_str_free(&key->text);
    *key = (tw_key){0};
}
