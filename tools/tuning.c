/* The run: shares of the budget, one problem after the other, and what each came to. */
#include "tools/tuning.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/core/act.h"
#include "tools/interrupt.h"
#include "tools/out.h"
#include "tools/subject.h"

/* ---- the budget ------------------------------------------------------------------------------ */

/* What a problem needs: its data made and packed, and samples.  Long ones are worth fewer of these,
 * or one large problem would take what all the small ones need. */
static double weight_of(const tw_context *context, const tw_problem *problem) {
    const double base_s = 0.1, weight_s = 25e-9, samples = 4;
    tw_problem kernel = tw_kernel_problem(problem);
    const tw_problem *p = &kernel;
    const tw_template *tmpl;
    tw_config config;
    if (tw_guess(&context->target, p, NULL, &tmpl, &config, NULL) != TW_OK) return 0;
    double run_s = tmpl->cost(&context->target, p, &config) / 1e9 / context->target.threads;
    return base_s + weight_s * (double)p->N * (double)p->K + samples * run_s + sqrt(run_s);
}

static bool known_before(tuning *t, const tw_problem *problem) {
    tw_decision decision;
    tw_plan_request request = tw_plan_ask(t->context, problem);
    request.mode = TW_MODE_CACHED_ONLY;
    return tw_plan_decide(t->context, &request, &decision) == TW_OK &&
           decision.origin == TW_ORIGIN_CACHE;
}

static bool anew(const cli_args *args) { return args->again || args->exhaustive; }

/* What is known first, then the heaviest: what the large ones take beyond their share, the small
 * ones can still make up for. */
static int by_weight(const void *a, const void *b) {
    const tuning_row *x = *(tuning_row *const *)a, *y = *(tuning_row *const *)b;
    if (!x->weight != !y->weight) return x->weight ? 1 : -1;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return x < y ? -1 : x > y; /* as given */
}

static void share_out(tuning *t) {
    for (int i = 0; i < t->in->count; i++) {
        tuning_row *row = &t->rows[i];
        row->item = &t->in->items[i];
        bool known = known_before(t, &row->item->problem);
        t->known += known;
        if (!known || anew(t->args)) row->weight = weight_of(t->context, &row->item->problem);
        tw_problem kernel = tw_kernel_problem(&row->item->problem);
        if (row->weight > 0) row->least_s = tw_tune_least_s(&t->context->target, &kernel);
        t->all += row->weight;
        t->order[i] = row;
    }
    qsort(t->order, (size_t)t->in->count, sizeof *t->order, by_weight);
}

/* Seconds that are left for tuning: less what rating takes, where that is little. */
static double left_s(const tuning *t) {
    const double most = 0.1;
    double left = (double)(t->deadline_ns - tw_now_ns()) / 1e9, rating = 0;
    for (int i = 0; i < t->in->count; i++)
        rating += t->rows[i].over ? 0 : rater_expects_ns(&t->rater) / 1e9;
    return left - fmin(rating, most * fmax(left, 0));
}

/* Whether there is time for figures that decide nothing. */
static bool can_rate(const tuning *t) {
    double needed_s = rater_expects_ns(&t->rater) / 1e9;
    for (int i = 0; i < t->in->count && t->end == TUNING_IN_TIME; i++)
        needed_s += t->rows[i].over ? 0 : t->rows[i].least_s;
    return t->end == TUNING_ALL || (double)(t->deadline_ns - tw_now_ns()) / 1e9 > needed_s;
}

/* Estimates of what rows need may be off by so much on another or a busy machine. */
static const double DOUBT = 3;

/* Weights of the lightest rows that are left, as many as fit into so many seconds, one at least;
 * *needed_s: what all that are left need. */
static double weights_within(const tuning *t, double seconds, double *needed_s) {
    double weights = 0;
    *needed_s = 0;
    for (int i = t->in->count - 1; i >= 0; i--) {
        const tuning_row *row = t->order[i];
        if (row->over) continue;
        *needed_s += row->least_s;
        if (*needed_s <= seconds || !(weights > 0)) weights += row->weight;
    }
    return weights;
}

/* The heaviest that is left while there is ample time for all of them, so that the lighter ones can
 * make up for what it takes beyond its share; else the lightest, so that as many as can be are
 * decided.  NULL: none is left, or the time is too short for any. */
static tuning_row *next_row(tuning *t, double *budget_s) {
    bool everything = t->end == TUNING_ALL;
    double left = left_s(t), needed_s;
    double weights = weights_within(t, everything ? INFINITY : left, &needed_s);
    bool all = everything || DOUBT * needed_s <= left;
    tuning_row *row = NULL;
    for (int i = 0; i < t->in->count; i++)
        if (!t->order[i]->over && (!row || !all)) row = t->order[i];
    if (!row) return NULL;
    /* Estimates may be wrong: the first one has its try. */
    bool tried = t->row && t->row->weight > 0, late = left <= 0 || (row->least_s > left && tried);
    t->overrun = t->overrun || late;
    if (late && !everything) return NULL;
    const double least_s = 1e-3;
    double need_s = all || row->tried ? row->least_s : DOUBT * row->least_s;
    /* What the others need stays theirs. */
    double most_s = all && !everything ? left - DOUBT * (needed_s - row->least_s) : left;
    *budget_s = fmax(least_s, fmin(most_s, fmax(need_s, left * row->weight / weights)));
    return row;
}

/* ---- progress -------------------------------------------------------------------------------- */

static int progress(void *user, int done, int total) {
    enum { EVERY_NS = 100000000 };
    static int64_t shown_ns;
    tuning *t = user;
    int64_t now = tw_now_ns();
    if (now - shown_ns >= EVERY_NS) {
        shown_ns = now;
        const tuning_row *row = t->row;
        double part = total > 0 ? (double)tw_min(done, total) / total : 0;
        double share = t->all > 0 ? (t->done + row->weight * part) / t->all : 1;
        double spent = (double)(now - t->start_ns) / 1e9,
               most = (double)(t->deadline_ns - now) / 1e9;
        double left = share > 0.02 ? spent * (1 - share) / share : most;
        out_progress(share, left < most ? left : most > 0 ? most : 0, row->item->text);
    }
    return interrupt_number();
}

/* ---- the run --------------------------------------------------------------------------------- */

static int closed(const tuning *t) {
    int count = 0;
    for (int i = 0; i < t->in->count; i++) count += t->rows[i].over;
    return count;
}

static void print_row(const tuning *t, const tuning_row *row) {
    const tw_decision *d = &row->decision;
    tw_str config = {0};
    tw_config_text(&d->config, &config);
    if (t->args->json)
        out_json(json_pack(
            "{s:s,s:I,s:s,s:s,s:s,s:s,s:b,s:b,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:i,s:i,"
            "s:i,s:i}",
            "problem", row->item->text, "count", row->item->count, "target",
            tw_target_isa(&t->context->target)->name, "kernel", d->tmpl->name, "config",
            tw_str_text(&config), "origin", tw_origin_text(d->origin), "decided", row->decided,
            "disturbed", row->result.disturbed, "median_ns", d->median_ns, "spread_ns",
            d->spread_ns, "nmse", d->error, "guess_ns", row->rating.guess_ns, "reference_ns",
            row->rating.reference_ns, "gops", row->rating.gops, "limit_gops",
            row->rating.limit_gops, "limit_gbps", row->rating.limit_gbps, "fraction_of_limit",
            row->rating.share, "measured", row->result.measured, "known", row->result.known,
            "failed", row->result.failed, "legal", row->result.legal));
    else if (d->origin == TW_ORIGIN_CACHE)
        out_note("[%d/%d] %s: known, %s %s, %s", closed(t), t->in->count, row->item->text,
                 d->tmpl->name, tw_str_text(&config), out_ns(d->median_ns).text);
    else
        out_note("[%d/%d] %s: %s %s, %s (%d configs measured, %d known, %d failed, of %d)%s",
                 closed(t), t->in->count, row->item->text, d->tmpl->name, tw_str_text(&config),
                 out_ns(d->median_ns).text, row->result.measured, row->result.known,
                 row->result.failed, row->result.legal,
                 !row->decided           ? " - broken off"
                 : row->result.disturbed ? " - disturbed by other work"
                                         : "");
    tw_str_free(&config);
}

/* Takes what is over into the count, and says so. */
static tw_status close_row(tuning *t, tuning_row *row) {
    const tw_decision *d = &row->decision;
    row->over = true;
    row->decided = d->origin == TW_ORIGIN_CACHE || row->result.decided;
    t->decided += row->decided;
    t->disturbed += row->decided && row->result.disturbed;
    t->done += row->weight;
    row->rating.guess_ns = row->result.guess_ns;
    if (row->decided)
        TW_TRY(rater_rate(&t->rater, &row->item->problem, d->median_ns, can_rate(t), &row->rating));
    print_row(t, row);
    return TW_OK;
}

/* TW_OK, or what makes going on pointless: a problem's own failure is counted and passed over. */
static tw_status tune_row(tuning *t, tuning_row *row, double budget_s) {
    tw_plan_request request = tw_plan_ask(t->context, &row->item->problem);
    t->row = row;
    request.mode = t->args->exhaustive ? TW_MODE_MAX_AUTOTUNE : TW_MODE_TUNE;
    request.again = anew(t->args);
    request.budget_s = budget_s;
    request.decide_anyway = t->end == TUNING_ALL;
    request.progress = progress;
    request.user = t;
    request.result = &row->result;
    tw_status status = tw_plan_decide(t->context, &request, &row->decision);
    if (status == TW_UNSUPPORTED || status == TW_VERIFY) {
        out_error("%s: %s", row->item->text, tw_error_message());
        row->over = true;
        t->failed++;
        return TW_OK;
    }
    TW_TRY(status);
    t->progress = t->progress || row->result.measured || row->result.decided;
    if (row->result.least_s > 0) {
        /* Not in this time; perhaps in what the others leave. */
        row->least_s = fmax(row->result.least_s, 1.1 * budget_s);
        row->tried = true;
        return TW_OK;
    }
    return close_row(t, row);
}

static tw_status run_rows(tuning *t) {
    double budget_s;
    for (int i = 0; i < t->in->count && !interrupt_number() && !(t->order[i]->weight > 0); i++)
        TW_TRY(tune_row(t, t->order[i], 0));
    for (tuning_row *row; !interrupt_number() && (row = next_row(t, &budget_s));)
        TW_TRY(tune_row(t, row, budget_s));
    return TW_OK;
}

static void begin(const tuning *t) {
    if (t->args->json) return;
    if (t->known && !anew(t->args))
        out_note("%d of %d problems are known from earlier runs", t->known, t->in->count);
}

int tuning_run(tw_context *context, const input *in, const cli_args *args, double budget_s,
               tuning_end end, tuning *out) {
    tuning *t = out;
    *t = (tuning){.context = context,
                  .args = args,
                  .in = in,
                  .end = end,
                  .budget_s = budget_s,
                  .start_ns = tw_now_ns()};
    t->deadline_ns = t->start_ns + (int64_t)(budget_s * 1e9);
    t->rows = calloc((size_t)in->count, sizeof *t->rows);
    t->order = (tuning_row **)calloc((size_t)in->count, sizeof *t->order);
    if (!t->rows || !t->order) {
        tw_fail(TW_MEMORY, "problems: out of memory for %d", in->count);
        return cli_failed();
    }
    if (rater_init(context, &t->rater) != TW_OK) return cli_failed();
    share_out(t);
    begin(t);
    interrupt_catch();
    tw_status status = run_rows(t);
    t->stopped = interrupt_number();
    interrupt_release();
    out_progress_clear();
    if (status != TW_OK) return cli_failed();
    return t->decided == in->count ? CLI_OK : CLI_FAILED;
}

const tuning_row *tuning_too_short(const tuning *t, double *least_s) {
    const tuning_row *least = NULL;
    for (int i = 0; i < t->in->count; i++) {
        const tuning_row *row = &t->rows[i];
        if (row->over) continue;
        /* What was tried in vain is known, the rest estimated. */
        bool known = row->tried && least && !least->tried;
        bool guessed = !row->tried && least && least->tried;
        if (!least || known || (!guessed && row->least_s < least->least_s)) least = row;
    }
    /* Of the budget, a part is for rating. */
    if (!least || (t->progress && least->least_s <= 0.9 * t->budget_s)) return NULL;
    /* So that whoever follows the advice gets there. */
    const double ample = 1.25;
    *least_s = ample * fmax(least->least_s, t->budget_s);
    return least;
}

static void add_times(tw_str *out, double slower, double ns) {
    if (slower > 0 && ns > 0)
        tw_str_add(out, slower / ns >= 100 ? "%.0fx" : "%.2fx", slower / ns);
    else
        tw_str_add(out, "-");
}

void tuning_table(const tuning *t) {
    out_table table;
    if (t->args->json) return;
    out_table_begin(&table, "llrrrrr",
                    "problem\tkernel and config\ttime\tGOPS\tof limit\tof guess\tof reference");
    for (int i = 0; i < t->in->count; i++) {
        const tuning_row *row = &t->rows[i];
        if (!row->decided) continue;
        tw_str text = {0}, config = {0}, share = {0}, guess = {0}, reference = {0};
        subject_text(&row->item->problem, &text);
        tw_config_text(&row->decision.config, &config);
        tw_str_add(&share, row->rating.share > 0 ? "%.0f %%" : "-", row->rating.share * 100);
        add_times(&guess, row->rating.guess_ns, row->decision.median_ns);
        add_times(&reference, row->rating.reference_ns, row->decision.median_ns);
        out_table_row(&table, "%s\t%s %s\t%s\t%.4g\t%s\t%s\t%s", tw_str_text(&text),
                      row->decision.tmpl->name, tw_str_text(&config),
                      out_ns(row->decision.median_ns).text, row->rating.gops, tw_str_text(&share),
                      tw_str_text(&guess), tw_str_text(&reference));
        tw_str_free(&text);
        tw_str_free(&config);
        tw_str_free(&share);
        tw_str_free(&guess);
        tw_str_free(&reference);
    }
    out_table_end(&table);
    out_line(
        "%d of %d problems decided in %.1f s, %d of them known before.  of limit: against the "
        "machine's own,\nmeasured in this run on %d thread%s; of guess, of reference: times "
        "faster than the untuned guess and than the\nreference (timed on 8 rows and 64 columns "
        "by one thread and scaled).",
        t->decided, t->in->count, (double)(tw_now_ns() - t->start_ns) / 1e9, t->known,
        t->context->target.threads, t->context->target.threads == 1 ? "" : "s");
}

void tuning_free(tuning *t) {
    rater_free(&t->rater);
    free(t->rows);
    free((void *)t->order);
    *t = (tuning){0};
}
