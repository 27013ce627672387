/* cmocka with the headers that it wants first. */
#ifndef TW_TESTS_CMOCKA_ALL_H
#define TW_TESTS_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
