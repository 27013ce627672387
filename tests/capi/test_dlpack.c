/* tilewright/dlpack.h: each dtype of DLPack's, what a view keeps, what is refused and why. */
#include "tests/capi/dlpack_abi.h"

#include <stdlib.h>
#include <string.h>
#include <tilewright/dlpack.h>

#include "tests/capi/fixture.h"

enum { N = 6, K = 8, WIDE = 16 };

/* A contiguous [N,K] of f32; `shape` and `strides` are the test's to change. */
typedef struct view {
    DLTensor in;
    int64_t shape[5], strides[5];
    float data[N * K + 1];
} view;

static void view_init(view *v) {
    *v = (view){.shape = {N, K, 1, 1, 1}};
    v->in = (DLTensor){v->data, {kDLCPU, 0}, 2, {kDLFloat, 32, 1}, v->shape, NULL, 0};
}

static void set_strides(view *v, int64_t row, int64_t column) {
    v->strides[0] = row, v->strides[1] = column;
    v->in.strides = v->strides;
}

static tw_tensor take(const view *v) {
    tw_tensor out;
    const char *why = "";
    if (tw_tensor_from_dlpack(&v->in, &out, &why) != TW_OK) fail_msg("%s", why);
    return out;
}

/* Refused with this status and a text that holds `part`; the output is not touched. */
#define check_refused(v, status, part) check_refused_at(&(v)->in, (status), (part), __LINE__)
static void check_refused_at(const DLTensor *in, tw_status status, const char *part, int line) {
    tw_tensor out, before;
    const char *why = "";
    memset(&out, 0x5a, sizeof out);
    before = out;
    if (tw_tensor_from_dlpack(in, &out, &why) != status || !strstr(why, part))
        fail_msg("line %d: \"%s\" is not \"%s\"", line, why, part);
    assert_memory_equal(&out, &before, sizeof out);
    assert_int_equal(tw_tensor_from_dlpack(in, &out, NULL), status);
}

static void test_dtypes(void **state) {
    (void)state;
    static const struct {
        unsigned code, bits;
        tw_dtype dtype;
    } rows[] = {
        {kDLFloat, 32, TW_F32},
        {kDLFloat, 16, TW_F16},
        {kDLBfloat, 16, TW_BF16},
        {kDLFloat8_e4m3fn, 8, TW_E4M3},
        {kDLFloat8_e5m2, 8, TW_E5M2},
        {kDLFloat8_e8m0fnu, 8, TW_E8M0},
        {kDLFloat6_e2m3fn, 6, TW_E2M3},
        {kDLFloat6_e3m2fn, 6, TW_E3M2},
        {kDLFloat4_e2m1fn, 4, TW_E2M1},
        {kDLFloat, 64, TW_NONE},
        {kDLInt, 32, TW_NONE},
        {kDLInt, 0, TW_NONE},
        {kDLUInt, 16, TW_NONE},
        {kDLBool, 8, TW_NONE},
        {kDLBool, 1, TW_NONE},
        {kDLFloat8_e4m3, 8, TW_NONE},
        {kDLFloat8_e4m3fnuz, 8, TW_NONE},
        {kDLFloat8_e4m3b11fnuz, 8, TW_NONE},
        {kDLFloat8_e3m4, 8, TW_NONE},
        {kDLFloat8_e5m2fnuz, 8, TW_NONE},
        {kDLFloat6_e2m3fn, 8, TW_NONE},
        {kDLFloat4_e2m1fn, 8, TW_NONE},
        {kDLComplex, 32, TW_NONE},
        {kDLOpaqueHandle, 8, TW_NONE},
        {255, 8, TW_NONE},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        if (tw_dtype_from_dlpack(rows[i].code, rows[i].bits) != rows[i].dtype)
            fail_msg("code %u of %u bits is %s", rows[i].code, rows[i].bits,
                     tw_dtype_name(tw_dtype_from_dlpack(rows[i].code, rows[i].bits)));
    for (unsigned bits = 1; bits <= 8; bits++) {
        assert_int_equal(tw_dtype_from_dlpack(kDLInt, bits), TW_I1 + bits - 1);
        assert_int_equal(tw_dtype_from_dlpack(kDLUInt, bits), TW_U1 + bits - 1);
    }
}

static void test_views(void **state) {
    (void)state;
    view v;
    view_init(&v);
    tw_tensor t = take(&v);
    assert_ptr_equal(t.data, v.data);
    assert_int_equal(t.dtype, TW_F32);
    assert_int_equal(t.ndim, 2);
    assert_int_equal(t.shape[0], N);
    assert_int_equal(t.shape[1], K);
    assert_int_equal(t.stride[0], 0);

    v.in.byte_offset = sizeof(float);
    v.in.device.device_type = kDLCUDAHost;
    assert_ptr_equal(take(&v).data, v.data + 1);
    v.in.device.device_type = kDLROCMHost;
    set_strides(&v, K, 1);
    t = take(&v);
    assert_true(t.stride[0] == 0 && t.stride[1] == 0);
    /* Transposed, and rows with a gap. */
    set_strides(&v, 1, N);
    t = take(&v);
    assert_true(t.stride[0] == 1 && t.stride[1] == N);
    set_strides(&v, WIDE, 1);
    t = take(&v);
    assert_true(t.stride[0] == WIDE && t.stride[1] == 1);
    /* One row has no next one, so its stride may be anything; NumPy gives such. */
    v.shape[0] = 1;
    set_strides(&v, -77, 1);
    assert_int_equal(take(&v).stride[0], 0);
    set_strides(&v, 0, 2);
    t = take(&v);
    assert_true(t.stride[0] > 0 && t.stride[1] == 2);
    /* Without elements there is nothing to reach. */
    v.shape[0] = 0;
    set_strides(&v, 0, 0);
    v.in.data = NULL;
    t = take(&v);
    assert_true(t.shape[0] == 0 && !t.data && t.stride[0] == 0);
    view_init(&v);
    v.in.ndim = 4;
    assert_int_equal(take(&v).shape[3], 1);
}

static void test_below_a_byte(void **state) {
    (void)state;
    view v;
    view_init(&v);
    v.in.dtype = (DLDataType){kDLUInt, 4, 1};
    set_strides(&v, K, 1);
    tw_tensor t = take(&v);
    assert_true(t.dtype == TW_U4 && t.stride[0] == 0);
    set_strides(&v, WIDE, 1);
    check_refused(&v, TW_UNSUPPORTED, "contiguous");
    v.in.strides = NULL;
    v.shape[1] = 7;
    check_refused(&v, TW_UNSUPPORTED, "rows of elements below a byte must end at a byte");
    v.shape[0] = 1;
    assert_int_equal(take(&v).shape[1], 7);
    v.in.dtype = (DLDataType){kDLFloat6_e3m2fn, 6, 1};
    v.shape[0] = 3, v.shape[1] = 4;
    assert_int_equal(take(&v).dtype, TW_E3M2);
    v.shape[1] = 6;
    check_refused(&v, TW_UNSUPPORTED, "end at a byte");
}

static void test_refusals(void **state) {
    (void)state;
    view v, good;
    view_init(&good);
    assert_int_equal(tw_tensor_from_dlpack(NULL, &(tw_tensor){0}, NULL), TW_INVALID);
    assert_int_equal(tw_tensor_from_dlpack(&good.in, NULL, NULL), TW_INVALID);
#define REFUSED(change, status, part)                                                              \
    view_init(&v);                                                                                 \
    change;                                                                                        \
    check_refused(&v, status, part)
    REFUSED(v.in.device.device_type = kDLCUDA, TW_UNSUPPORTED, "device: ");
    REFUSED(v.in.dtype.lanes = 4, TW_UNSUPPORTED, "lanes");
    REFUSED(v.in.dtype.lanes = 0, TW_UNSUPPORTED, "lanes");
    REFUSED(v.in.dtype.bits = 64, TW_UNSUPPORTED, "dtype: ");
    REFUSED(v.in.ndim = 0, TW_UNSUPPORTED, "ndim: ");
    REFUSED(v.in.ndim = 5, TW_UNSUPPORTED, "ndim: ");
    REFUSED(v.in.shape = NULL, TW_INVALID, "shape: NULL");
    REFUSED(v.shape[0] = -1, TW_INVALID, "shape: negative");
    REFUSED(v.shape[0] = INT64_MAX, TW_INVALID, "shape: too large");
    REFUSED(set_strides(&v, 0, 1), TW_UNSUPPORTED, "strides: not positive"); /* broadcast */
    REFUSED(set_strides(&v, -K, 1), TW_UNSUPPORTED, "strides: not positive");
#undef REFUSED
}

/* Canonical tensors that went through DLPack give the layer that they give without. */
static DLTensor export(const tw_tensor *t, int64_t *shape, unsigned code) {
    memcpy(shape, t->shape, 2 * sizeof *shape);
    DLDataType dtype = {(uint8_t)code, (uint8_t)tw_dtype_bits(t->dtype), 1};
    return (DLTensor){t->data, {kDLCPU, 0}, t->ndim, dtype, shape, NULL, 0};
}

static void test_a_layer(void **state) {
    fixture *f = *state;
    layer l;
    int64_t shapes[3][2];
    tw_tensor parts[3];
    layer_init(&l, "N=24,K=64,w=u4,g=32,s=f16,z=value", 9);
    DLTensor in[] = {export(&l.weight, shapes[0], kDLUInt), export(&l.scales, shapes[1], kDLFloat),
                     export(&l.zeros, shapes[2], kDLFloat)};
    for (int i = 0; i < 3; i++)
        assert_int_equal(tw_tensor_from_dlpack(&in[i], &parts[i], NULL), TW_OK);
    tw_context *context = open_context(f);
    tw_linear *linear = NULL;
    check_ok(tw_linear_create(context, &l.desc, &parts[0], &parts[1], &parts[2], NULL, &linear));
    check_forward(&l, linear, 5);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_below_a_byte),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test_setup_teardown(test_a_layer, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
