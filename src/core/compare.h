/* Whether a row of y is right: the tolerances that tests, the tuner and `verify` share. */
#ifndef TW_CORE_COMPARE_H
#define TW_CORE_COMPARE_H

#include "src/core/problem.h"

/* Compares columns [0, n) of a row of y (y_row: n elements of p->y) with tw_reference_row's output
 * for the same codes: `expected`, and `magnitude`, the sum over k of |x||w|.  chain: f32 additions
 * that follow one another into one element of y, as the kernel's template states.
 *
 * With u = 2^-24, r the error left after half a unit in the last place of an f16 or bf16 y, and
 * R = chain + the roundings outside of it (scales, bias, activation function):
 *   row        sum r^2 <= u^2 * R * (1 + 36/n) * sum e^2    e^2 = max(expected^2, magnitude^2 / K)
 *   element    r^2 <= u^2 * R * 37 * e^2
 *   z=value    instead of both, each element within the larger of the element's rule above and
 *              4 u * magnitude + u * (R - chain) * |expected|
 * R roundings of random sign, each at most u of a sum, give a mean square of at most u^2 R.  A row
 * is a sample of n such errors: 36/n allows six sigma for one element, and vanishes for many.
 * magnitude^2 / K is what the square of the sum is at least when its terms' signs are random
 * (Cauchy and Schwarz), so that terms which happen to cancel do not ask for more than f32 has.
 * Value zeros cancel against sums of codes, hence 4 u * magnitude; but where one term outweighs the
 * rest, each addition after it errs by up to u / 2 of it, and three additions reach 4 u of the
 * magnitude at 4.5 sigma: no f32 sum of more terms can stay below, whatever it does about zeros.
 * NaN never passes; an infinity does where rounding `expected` gives one.
 * Underflow is allowed R times 2^-150.
 *
 * *nmse (may be NULL): sum r^2 / sum e^2, also on failure.
 * Errors: VERIFY names the column, what is there and what was expected. */
tw_status tw_compare_row(const tw_problem *p, int64_t chain, const double *expected,
                         const double *magnitude, const void *y_row, int64_t n, double *nmse);

#endif
