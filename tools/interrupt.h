/* Ctrl-C for commands that can stop in good order: the first one asks, the second one kills. */
#ifndef TW_TOOLS_INTERRUPT_H
#define TW_TOOLS_INTERRUPT_H

#include <stdbool.h>

/* From here on a signal that asks a process to end only makes interrupt_number() tell of it; what
 * the parent had us ignore (`tune &` in a script, nohup) stays ignored. */
void interrupt_catch(void);
/* The signal that came; 0: none. */
int interrupt_number(void);
/* Signals do again what they did before. */
void interrupt_release(void);

#endif
