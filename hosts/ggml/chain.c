/* Small operations one after another, as of a single token: one operation of ggml's.
 *
 * Who comes first leads through all of them.  What is not worth sharing it does by itself, and the
 * others hear of the rest only: no barrier of all threads in between. */
#include "hosts/ggml/backend.h"

typedef struct share {
    const twg_link *link;
    int nth;
} share;

static void run_share(void *arg, size_t i) {
    const share *s = arg;
    s->link->run(NULL, (int)i, s->nth, s->link->operation);
}

static void lead(void *arg) {
    const twg_chain *chain = arg;
    for (int i = 0; i < chain->count; i++) {
        const twg_link *link = &chain->links[i];
        share all = {link, chain->operation.nth};
        switch (link->manner) {
        case TWG_LED: twg_product_lead(link->operation); break;
        case TWG_BY_ALL: twg_parallel_run(NULL, run_share, &all, (size_t)all.nth); break;
        default: link->run(NULL, 0, 1, link->operation);
        }
    }
}

void twg_chain_run(struct ggml_tensor *node, int ith, int nth, void *user) {
    twg_chain *chain = user;
    (void)node, (void)ith;
    twg_team_run(&chain->operation, nth, lead, chain);
}
