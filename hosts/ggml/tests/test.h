/* What the files of test.c's program share. */
#ifndef TILEWRIGHT_HOSTS_GGML_TESTS_TEST_H
#define TILEWRIGHT_HOSTS_GGML_TESTS_TEST_H

#include <ggml-backend.h>
#include <ggml.h>
#include <stdbool.h>
#include <stddef.h>

/* Ours. */
extern ggml_backend_t backend;

/* Values of [-1, 1), for free. */
float *numbers(size_t count);
/* A context without memory for tensors. */
struct ggml_context *tensors(void);
/* Memory for a context's tensors, which is said to hold weights. */
ggml_backend_buffer_t alloc_weights(struct ggml_context *context);
/* Computes a graph as one that ggml numbers, and the same again: what the first time changed of it
 * would show, and what the second one knows from the first. */
bool compute_twice(struct ggml_cgraph *graph);
/* Prints a case; error: over signal, squared. */
void check(const char *what, double error);

/* As check; rounded: numbers on the way were rounded to bf16, to within 2^-8 of them. */
void check_rounded(const char *what, double error, bool rounded);

/* attention.c; whether the backend rounds in attention of many tokens */
bool attention_rounds(void);
void attentions(void);

/* chain.c */
void chains(void);

/* glu.c */
void glus(void);

/* heads.c */
void heads(void);

/* moves.c */
void moves(void);

/* norm.c */
void norms(void);

/* plan.c */
void plans(void);

/* rows.c */
void rows_read(void);

#endif
