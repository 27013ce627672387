/* The header as C11 with -Wpedantic, by a program that links the shared library alone; and the ABI:
 * what callers compiled yesterday rely on. */
#include <stdio.h>
#include <string.h>
#include <tilewright/model.h>
#include <tilewright/quant.h>
#include <tilewright/tilewright.h>

/* struct_size comes first, fields stay where they are, new ones go to the end. */
#define FIRST(type) _Static_assert(offsetof(type, struct_size) == 0, #type)
FIRST(tw_options);
FIRST(tw_device_info);
FIRST(tw_stats);
FIRST(tw_linear_desc);
FIRST(tw_plan_info);
FIRST(tw_linear_call);
FIRST(tw_linear_impl);
FIRST(tw_affine_desc);

#if defined(__LP64__)
#define AT(type, field, at) _Static_assert(offsetof(type, field) == (at), #type "." #field)
AT(tw_scheme, group_n, 12);
AT(tw_scheme, act_group, 24);
AT(tw_scheme, fpmath, 28);
_Static_assert(sizeof(tw_scheme) == 32, "part of tw_linear_desc");
AT(tw_tensor, dtype, 8);
AT(tw_tensor, ndim, 12);
AT(tw_tensor, shape, 16);
AT(tw_tensor, stride, 48);
_Static_assert(sizeof(tw_tensor) == 80, "passed by callers");
AT(tw_options, cache_path, 8);
AT(tw_options, device, 16);
AT(tw_options, mode, 24);
AT(tw_options, tune_budget_s, 32);
AT(tw_options, threads, 40);
AT(tw_options, parallel, 48);
AT(tw_options, log, 72);
AT(tw_options, allocator, 88);
AT(tw_options, cache_system_path, 112);
AT(tw_device_info, name, 8);
AT(tw_device_info, target, 72);
AT(tw_device_info, threads, 104);
AT(tw_device_info, l3_bytes, 128);
AT(tw_linear_desc, N, 8);
AT(tw_linear_desc, K, 16);
AT(tw_linear_desc, x, 24);
AT(tw_linear_desc, scheme, 32);
AT(tw_linear_desc, act, 64);
AT(tw_linear_desc, order, 80);
AT(tw_linear_desc, act_scale, 88);
AT(tw_plan_info, kernel, 8);
AT(tw_plan_info, config, 72);
AT(tw_plan_info, origin, 200);
AT(tw_plan_info, median_ns, 216);
AT(tw_linear_call, scheme, 32);
AT(tw_linear_call, x, 40);
AT(tw_linear_call, y, 80);
AT(tw_linear_call, act, 88);
AT(tw_linear_call, act_scale, 104);
AT(tw_linear_impl, name, 8);
AT(tw_linear_impl, priority, 20);
AT(tw_linear_impl, condition, 24);
AT(tw_linear_impl, run, 32);
AT(tw_linear_impl, user, 40);
AT(tw_affine_desc, x, 40);
AT(tw_affine_desc, qmin, 52);
AT(tw_affine_desc, mapping, 64);
AT(tw_affine_desc, eps, 72);
#endif

static int defects;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
            defects++;                                                                             \
        }                                                                                          \
    } while (0)

static void check_initializers(void) {
    tw_options options = TW_OPTIONS_INIT;
    tw_device_info device = TW_DEVICE_INFO_INIT;
    tw_stats stats = TW_STATS_INIT;
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    tw_plan_info plan = TW_PLAN_INFO_INIT;
    tw_affine_desc affine = TW_AFFINE_DESC_INIT;
    char byte = 0;
    tw_tensor one = TW_TENSOR_1D(&byte, TW_U8, 1), two = TW_TENSOR_2D(&byte, TW_I1, 2, 3);
    CHECK(options.struct_size == sizeof options && options.mode == TW_MODE_DEFAULT);
    CHECK(device.struct_size == sizeof device && stats.struct_size == sizeof stats);
    CHECK(desc.struct_size == sizeof desc && plan.struct_size == sizeof plan);
    CHECK(affine.struct_size == sizeof affine && affine.eps == 0);
    CHECK(one.ndim == 1 && one.shape[0] == 1 && one.data == &byte && one.dtype == TW_U8);
    CHECK(two.ndim == 2 && two.shape[0] == 2 && two.shape[1] == 3 && two.stride[0] == 0);
}

static void check_messages(void) {
    tw_scheme scheme;
    CHECK(tw_version() == (TW_VERSION_MAJOR << 16 | TW_VERSION_MINOR << 8 | TW_VERSION_PATCH));
    CHECK(strcmp(tw_error_message(), "") == 0);
    CHECK(tw_scheme_parse("w=u4,q=3", &scheme) == TW_INVALID);
    CHECK(strstr(tw_error_message(), "\"q\": unknown field"));
    CHECK(tw_scheme_parse(NULL, &scheme) == TW_INVALID);
    CHECK(tw_scheme_parse("w=u4", NULL) == TW_INVALID);
    CHECK(tw_scheme_parse("z=code,a=i8,w=u4,g=128,s=f16", &scheme) == TW_OK);
    CHECK(scheme.weight == TW_U4 && scheme.group_n == 1 && scheme.group_k == 128);
    CHECK(scheme.act_quant == TW_ACTQ_I8 && scheme.zero_mode == TW_ZERO_CODE);
}

int main(void) {
    check_initializers();
    check_messages();
    return defects != 0;
}
