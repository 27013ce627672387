/* Quantiles by linear interpolation between the two nearest of the sorted values. */
#include "autotune/statistics.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void tw_sort(double *values, int count) { qsort(values, (size_t)count, sizeof *values, ascending); }

double tw_quantile(const double *sorted, int count, double q) {
    double at = q * (count - 1);
    int i = (int)at;
    double next = sorted[i + 1 < count ? i + 1 : i];
    return sorted[i] + (at - i) * (next - sorted[i]);
}

double tw_median(double *values, int count) {
    tw_sort(values, count);
    return tw_quantile(values, count, 0.5);
}
