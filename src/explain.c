/* Why a plan is what it is, and what its kernel looks like: text for people. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/options.h"
#include "src/base/status.h"
#include "src/build.h"
#include "src/core/act.h"

tw_status tw_plan_explain(tw_context *context, const tw_plan_request *request,
                          const tw_decision *decision, tw_str *out) {
    tw_problem problem = tw_kernel_problem(request->problem);
    int bucket = tw_bucket_index(problem.M);
    problem.M = tw_bucket_rows(bucket);
    tw_key key;
    TW_TRY(tw_choice_key(&problem, bucket, &context->target, &key));
    if (tw_act_rounds(&request->problem->scheme)) {
        tw_str_add(out, "first    ");
        tw_act_explain(&request->problem->scheme, out);
        tw_str_add(out, "\n");
    }
    tw_str_add(out, "key      %s\nkernel   %s", tw_str_text(&key.text),
               decision->tmpl ? decision->tmpl->name : "reference");
    if (decision->tmpl) tw_str_add(out, " version %u\nconfig   ", decision->tmpl->version);
    if (decision->tmpl) tw_config_text(&decision->config, out);
    tw_str_add(out, "\norigin   %s", tw_origin_text(decision->origin));
    if (decision->median_ns > 0)
        tw_str_add(out, "\nmeasured %.3f us, spread %.3f us, error %.2e%s",
                   decision->median_ns / 1e3, decision->spread_ns / 1e3, decision->error,
                   tw_act_rounds(&request->problem->scheme) ? "; of the kernel alone" : "");
    tw_str_add(out, "\n");
    tw_key_free(&key);

    const tw_template *guessed;
    tw_config config;
    tw_status status =
        tw_guess(&context->target, &problem, request->layout, &guessed, &config, out);
    /* That no kernel takes the problem is what the lines say. */
    if (status != TW_OK && status != TW_UNSUPPORTED) return status;
    return tw_str_ok(out);
}

/* ---- $TW_DUMP ---- */

static tw_status write_file(const char *folder, const char *name, const tw_str *text) {
    tw_str path = {0};
    tw_str_add(&path, "%s/%s", folder, name);
    int fd = tw_str_ok(&path) == TW_OK
                 ? open(tw_str_text(&path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)
                 : -1;
    size_t done = 0;
    while (fd >= 0 && done < text->size) {
        ssize_t n = write(fd, text->text + done, text->size - done);
        if (n <= 0 && errno != EINTR) break;
        if (n > 0) done += (size_t)n;
    }
    bool ok = fd >= 0 && close(fd) == 0 && done == text->size;
    tw_status status = ok ? TW_OK : tw_fail(TW_IO, "%s: %s", tw_str_text(&path), strerror(errno));
    tw_str_free(&path);
    return status;
}

static tw_status write_code(tw_context *c, const char *folder, const char *name,
                            const tw_template *tmpl, const tw_problem *problem,
                            const tw_config *config, tw_code_kind kind) {
    tw_str text = {0};
    tw_status status = tw_template_compile(tmpl, problem, config, &c->target, kind, &text);
    if (status == TW_OK) status = write_file(folder, name, &text);
    tw_str_free(&text);
    return status;
}

static tw_status make_folder(const char *path) {
    if (!mkdir(path, 0755) || errno == EEXIST) return TW_OK;
    return tw_fail(TW_IO, "%s: %s", path, strerror(errno));
}

static tw_status dump_files(tw_context *c, const char *folder, const tw_key *key,
                            const tw_template *tmpl, const tw_problem *problem,
                            const tw_config *config, const tw_str *object) {
    tw_str text = {0};
    TW_TRY(make_folder(folder));
    tw_str_add(&text, "%s\n", tw_str_text(&key->text));
    tw_status status = tw_str_ok(&text);
    if (status == TW_OK) status = write_file(folder, "key.txt", &text);
    tw_str_free(&text);
    TW_TRY(status);
    TW_TRY(write_file(folder, "kernel.o", object));
    TW_TRY(write_code(c, folder, "kernel.ll", tmpl, problem, config, TW_CODE_IR));
    return write_code(c, folder, "kernel.s", tmpl, problem, config, TW_CODE_ASM);
}

void tw_dump_build(tw_context *context, const tw_key *key, const tw_template *tmpl,
                   const tw_problem *problem, const tw_config *config, const tw_str *object) {
    const char *root = tw_option_text(TW_OPT_TW_DUMP);
    if (!*root) return;
    tw_str folder = {0};
    tw_str_add(&folder, "%s/%s-%.16s", root, tmpl->name, key->digest);
    tw_status status = tw_str_ok(&folder);
    if (status == TW_OK) status = make_folder(root);
    if (status == TW_OK)
        status = dump_files(context, tw_str_text(&folder), key, tmpl, problem, config, object);
    if (status == TW_OK)
        tw_log_line(&context->log, TW_LOG_DEBUG, "dumped to %s", tw_str_text(&folder));
    else if (!atomic_exchange(&context->dump_warned, true))
        tw_log_line(&context->log, TW_LOG_WARN, "TW_DUMP: %s", tw_error_message());
    tw_str_free(&folder);
}
