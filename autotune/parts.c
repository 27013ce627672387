/* Batches of parts, with a look at the clock before each. */
#include "autotune/parts.h"

/* Parts of one batch for each thread: so many that threads seldom wait for one another. */
enum { BATCH = 4 };
/* Of so much of the work, the first parts tell how long the rest takes. */
static const double TELLING = 0.1;

typedef struct batch {
    void (*task)(void *arg, size_t i);
    void *arg;
    size_t first;
} batch;

static void batch_task(void *arg, size_t i) {
    const batch *b = arg;
    b->task(b->arg, b->first + i);
}

/* Whether to go on with `done` parts of `count` behind. */
static bool go_on(tw_parts *p, int64_t start_ns, size_t done, size_t count) {
    double now = (double)tw_env_now(p->env), share = (double)done / (double)count;
    double missing = done ? (now - (double)start_ns) * (1 - share) / share : 0;
    double expected = share >= TELLING ? missing : 0;
    bool late = p->deadline_ns != INT64_MAX && now + expected >= (double)p->deadline_ns;
    if (!late && !(p->stop && p->stop(p->arg))) return true;
    p->missing_ns = missing;
    return false;
}

bool tw_parts_run(tw_parts *p, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    size_t most = (size_t)(p->threads ? tw_threads_count(p->threads) : 1) * BATCH;
    int64_t start_ns = tw_env_now(p->env);
    for (size_t done = 0, size; done < count; done += size) {
        if (!go_on(p, start_ns, done, count)) return false;
        size = count - done < most ? count - done : most;
        tw_threads_run(p->threads, batch_task, &(batch){task, arg, done}, size);
    }
    return true;
}
