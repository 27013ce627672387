/* Order statistics of a few measurements. */
#ifndef TW_AUTOTUNE_STATISTICS_H
#define TW_AUTOTUNE_STATISTICS_H

/* Least first. */
void tw_sort(double *values, int count);
/* q from 0 (the least) to 1 (the largest), between the two nearest of sorted values; count at least
 * 1. */
double tw_quantile(const double *sorted, int count, double q);
/* Sorts them; count at least 1. */
double tw_median(double *values, int count);

#endif
