/* Whether a row of y is right: the tolerances that tests, the tuner and `verify` share. */
#ifndef TW_CORE_COMPARE_H
#define TW_CORE_COMPARE_H

#include "src/core/problem.h"

/* Compares columns [0, n) of a row of y (y_row: n elements of p->y) with tw_reference_row's output
 * for the same codes: `expected`, and `magnitude`, the sum over k of |x||w| as it counts them.
 * chain: f32 additions that follow one another into one element of y, as the kernel's template
 * states.
 *
 * With u = 2^-24, r the error left after half a unit in the last place of an f16 or bf16 y, and
 * R = chain + the roundings outside of it (scales, bias, activation function):
 *   row        sum r^2 <= u^2 * R * (1 + 36/n) * sum e^2    e^2 = max(expected^2, magnitude^2 / K),
 *              with fewer than 64 columns max(expected^2, magnitude^2)
 *   element    r^2 <= u^2 * R * 37 * max(expected^2, magnitude^2)
 *   z=value    of codes of x, instead of both: each element
 *              r^2 <= u^2 * R * 37 * max(expected^2, magnitude^2 / K)
 *              or r <= 4 u * magnitude + u * (R - chain) * |expected|;
 *              of x that is no codes: elements alone, since a zero that all columns share makes
 *              their sums small together, and a row no sample
 * R roundings of random sign, each at most u of a sum so far, give a mean square of at most u^2 R
 * times the square of those sums, which is the sum over k of (x w)^2 where signs are random.  The
 * expected^2 of a row have that for their mean, however it is distributed over k; a few of them may
 * be small by accident.  It is at least magnitude^2 / K (Cauchy and Schwarz: terms of one size) and
 * at most magnitude^2 (one term alone).  A row is a sample of n errors: 36/n allows six sigma for
 * one, and vanishes for many.
 * Value zeros cancel against sums of codes, hence 4 u * magnitude (where x is no codes, they are
 * part of each weight before the product, and nothing is to cancel); but where one term outweighs
 * the rest, each addition after it errs by up to u / 2 of it, and three additions reach 4 u of the
 * magnitude at 4.5 sigma: no f32 sum of more terms can stay below, whatever it does about zeros.
 * NaN never passes; an infinity does where rounding `expected` gives one.
 * Underflow is allowed R times 2^-150.
 *
 * *nmse (may be NULL): sum r^2 / sum e^2, also on failure.
 * Errors: VERIFY names the column, what is there and what was expected. */
tw_status tw_compare_row(const tw_problem *p, int64_t chain, const double *expected,
                         const double *magnitude, const void *y_row, int64_t n, double *nmse);

#endif
