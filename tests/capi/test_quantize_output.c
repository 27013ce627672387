/* The output of quantizing a model: whole or not there, and never what is read. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "src/base/status.h"
#include "src/format/model_write.h"
#include "tests/capi/models.h"

static void refusals(void **state) {
    (void)state;
    static const struct {
        tw_quantize_rule rule;
        const char *words;
    } cases[] = {
        {{"lm_haed", "none"}, "rule 'lm_haed': no tensor and no module"},
        {{"re:(", "none"}, "rule 're:('"},
        {{"lm_head", "int5_magic"}, "rule 'lm_head'"},
        {{"", "none"}, "pattern that is empty"},
        {{NULL, "none"}, "pattern that is empty"},
    };
    seen s = {0};
    models_make(models_small, MODELS_SMALL);
    tw_quantize_options o = models_options(&s, "int8_weight_only");
    o.rule_count = 1;
    check_fails(tw_quantize_model(models_source, models_output, &o), TW_INVALID, "rule_count: 1");
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        o.rules = &cases[i].rule;
        check_fails(tw_quantize_model(models_source, models_output, &o), TW_INVALID,
                    cases[i].words);
    }
    o = models_options(&s, "int5_magic");
    check_fails(tw_quantize_model(models_source, models_output, &o), TW_INVALID,
                "\"int5_magic\" is not known");
    o.recipe = "int8_weight_only";
    check_fails(tw_quantize_model(NULL, models_output, &o), TW_INVALID, "in: NULL");
    check_fails(tw_quantize_model(models_source, NULL, &o), TW_INVALID, "out: NULL");
    check_fails(tw_quantize_model(models_source, models_output, NULL), TW_INVALID, "options: NULL");
    check_fails(tw_quantize_model(models_source, "x.bin", &o), TW_INVALID, "expected NAME.gguf");
    o.form = (tw_form)17;
    check_fails(tw_quantize_model(models_source, models_output, &o), TW_INVALID, "form: 17");
    o.form = TW_FORM_BY_NAME;
    o.overwrite = 1;
    check_fails(tw_quantize_model(models_source, models_source, &o), TW_INVALID, "is what is read");
    check_fails(tw_quantize_model("no.safetensors", models_output, &o), TW_IO, "no.safetensors");
    check_fails(tw_quantize_model(models_source, "no/folder/x.safetensors", &o), TW_IO,
                "no/folder/x");
    o.overwrite = 0;
    check_ok(tw_quantize_model(models_source, models_output, &o));
    check_fails(tw_quantize_model(models_source, models_output, &o), TW_IO, "is there already");
    o.form = TW_FORM_COMPRESSED;
    check_fails(tw_quantize_model(models_source, models_folder, &o), TW_IO, "is there already");
}

/* ---- whole or not at all --------------------------------------------------------------------- */

static void cancelled(void **state) {
    (void)state;
    models_make(models_small, MODELS_SMALL);
    for (tw_form form = TW_FORM_TILEWRIGHT; form <= TW_FORM_COMPRESSED; form++)
        for (int stop = 1; stop < 9; stop += 3) {
            seen s = {.stop_at = stop};
            tw_quantize_options o = models_options(&s, "intx_weight_only,w=i4,g=32,s=f16");
            o.form = form;
            check_fails(tw_quantize_model(models_source, models_output, &o), TW_CANCELLED,
                        "cancelled at tensor");
            assert_int_equal(models_files(), 1);
        }
}

/* A signal that comes while the last piece is worked on. */
static void cancelled_at_the_end(void **state) {
    (void)state;
    seen s = {.stop_at_end = true};
    models_make(models_small, MODELS_SMALL);
    tw_quantize_options o = models_options(&s, "int8_weight_only");
    check_fails(tw_quantize_model(models_source, models_output, &o), TW_CANCELLED,
                "nothing was written");
    assert_int_equal(models_files(), 1);
}

/* Neither a folder's own file nor a part of a split model is replaced by what is made of it. */
static void onto_its_source(void **state) {
    (void)state;
    char model[128];
    seen s = {0};
    models_make(models_small, MODELS_SMALL);
    snprintf(model, sizeof model, "%s/model.safetensors", models_folder);
    assert_int_equal(rename(models_source, model), 0);
    tw_quantize_options o = models_options(&s, "int8_weight_only");
    o.overwrite = 1;
    check_fails(tw_quantize_model(models_folder, model, &o), TW_INVALID, "is what is read");
    assert_int_equal(rename(model, models_source), 0);
    o.report = NULL;
    check_fails(tw_quantize_model(TW_TEST_DATA "/gguf/split-00001-of-00003.gguf",
                                  TW_TEST_DATA "/gguf/split-00002-of-00003.gguf", &o),
                TW_INVALID, "is what is read");
}

/* Quantized, but without an element: what is written reads back. */
static void empty_tensors(void **state) {
    (void)state;
    const tw_planned_tensor plan[] = {
        {.name = "a.weight", .ndim = 2, .shape = {0, 64}, .type = "Q8_0"},
        {.name = "b.weight", .ndim = 2, .shape = {1, 32}, .type = "F32"}};
    const float zeros[32] = {0};
    FILE *file = fopen(models_source, "wb");
    const tw_sink sink = {models_write, file};
    tw_model_writer *w = NULL;
    seen s = {0};
    assert_non_null(file);
    check_ok(tw_model_writer_create(TW_FORM_GGUF, &sink, plan, 2, NULL, &w));
    check_ok(tw_model_writer_add_data(w, zeros, 0));
    check_ok(tw_model_writer_add_data(w, zeros, sizeof zeros));
    check_ok(tw_model_writer_finish(w));
    fclose(file);
    tw_quantize_options o = models_options(&s, "int8_weight_only");
    check_ok(tw_quantize_model(models_source, models_output, &o));
    tw_model_close(models_open(models_output));
}

static void full_disk(void **state) {
    (void)state;
    struct rlimit before, limit;
    models_make(models_small, MODELS_SMALL);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (tw_form form = TW_FORM_TILEWRIGHT; form <= TW_FORM_COMPRESSED; form++) {
        seen s = {0};
        tw_quantize_options o = models_options(&s, "intx_weight_only,w=i4,g=32,s=f16");
        o.form = form;
        check_fails(tw_quantize_model(models_source, models_output, &o), TW_IO, "large");
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(models_files(), 1);
}

static void bad_values(void **state) {
    (void)state;
    static const tw_safetensors_tensor tensors[] = {{"a.weight", "F32", 2, {3, 64}}};
    seen s = {0};
    models_make(tensors, 1);
    FILE *file = fopen(models_source, "r+b");
    const float nan_value = NAN;
    assert_non_null(file);
    assert_int_equal(fseek(file, -4, SEEK_END), 0);
    assert_int_equal(fwrite(&nan_value, 4, 1, file), 1);
    fclose(file);
    tw_quantize_options o = models_options(&s, "int8_weight_only");
    check_fails(tw_quantize_model(models_source, models_output, &o), TW_INVALID,
                "tensor 'a.weight'");
    assert_non_null(strstr(tw_error_message(), "nan at [2,63]"));
    assert_int_equal(models_files(), 1);
}

static void dry_run(void **state) {
    (void)state;
    seen s = {0};
    models_make(models_small, MODELS_SMALL);
    tw_quantize_options o = models_options(&s, "int8_weight_only");
    o.dry_run = 1;
    check_ok(tw_quantize_model(models_source, models_output, &o));
    assert_int_equal(s.count, MODELS_SMALL);
    assert_int_equal(models_files(), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, models_setup, models_teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(refusals),      TEST(cancelled), TEST(cancelled_at_the_end), TEST(onto_its_source),
        TEST(empty_tensors), TEST(full_disk), TEST(bad_values),           TEST(dry_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
