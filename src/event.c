/* Events of the timeline: problem and config as the texts that every tool takes. */
#include "src/event.h"

void tw_event_end(const tw_context *context, const tw_event *e) {
    if (!context->timeline) return;
    int64_t end = e->end_ns ? e->end_ns : tw_now_ns();
    tw_str problem = {0}, config = {0};
    tw_problem_text(e->problem, &problem);
    if (e->config) tw_config_text(e->config, &config);
    const tw_timeline_arg args[] = {
        {"problem", tw_str_text(&problem)},
        {"kernel", e->kernel},
        {"config", e->config ? tw_str_text(&config) : NULL},
        e->detail,
        {"error", e->status == TW_OK ? NULL : tw_status_name(e->status)},
    };
    tw_timeline_add(context->timeline, e->name, e->start_ns, end, args, TW_COUNT(args));
    tw_str_free(&problem);
    tw_str_free(&config);
}
