/* Well-known quantization formats in the words of a scheme: independent fields, so these are names
 * for people and nothing in the library knows them. */
#ifndef TW_TOOLS_SCHEMES_H
#define TW_TOOLS_SCHEMES_H

typedef struct named_scheme {
    const char *name, *text, *from;
} named_scheme;

/* The i-th row, NULL past the end. */
const named_scheme *named_scheme_row(int i);

#endif
