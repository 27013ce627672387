/* Fuzz target: problem texts, one and a file of them.  What parses must survive the way to text
 * and back. */
#include "tests/fuzz/fuzz.h"

static void round_trip(const char *text) {
    tw_problem first, second;
    tw_str once = {0}, twice = {0};
    tw_status status = tw_problem_parse(text, false, &first);
    if (status) {
        must_explain(status);
        return;
    }
    MUST(tw_problem_check(&first) == TW_OK);
    tw_problem_text(&first, &once);
    MUST(tw_problem_parse(tw_str_text(&once), false, &second) == TW_OK);
    tw_problem_text(&second, &twice);
    MUST(!strcmp(tw_str_text(&once), tw_str_text(&twice)));
    tw_str_free(&once);
    tw_str_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    MUST(text);
    if (size) memcpy(text, data, size);
    text[size] = 0;
    /* A problem is one line; its error quotes it. */
    text[strcspn(text, "\n")] = 0;
    round_trip(text);
    free(text);
    open_and_read(data, size, TW_MODEL_PROBLEMS);
    return 0;
}
