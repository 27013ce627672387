/* See interrupt.h. */
#include "tools/interrupt.h"

#include <signal.h>
#include <stddef.h>

#include "src/base/base.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) { interrupted = number; }

static const int interrupts[] = {SIGINT, SIGTERM, SIGHUP};
static struct sigaction before[TW_COUNT(interrupts)];

void interrupt_catch(void) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    interrupted = 0;
    for (size_t i = 0; i < TW_COUNT(interrupts); i++) {
        sigaction(interrupts[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN) sigaction(interrupts[i], &action, NULL);
    }
}

int interrupt_number(void) { return interrupted; }

void interrupt_release(void) {
    for (size_t i = 0; i < TW_COUNT(interrupts); i++) sigaction(interrupts[i], &before[i], NULL);
}
