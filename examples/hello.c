/* A quantized linear layer in ten lines: float weights in, 4-bit weights and a generated kernel
 * out. */
#include <stdio.h>
#include <tilewright/tilewright.h>

static float weights[256 * 512], input[8 * 512], output[8 * 256];

int main(void) {
    for (int i = 0; i < 256 * 512; i++) weights[i] = (float)(i % 13 - 6);
    for (int i = 0; i < 8 * 512; i++) input[i] = (float)(i % 7 - 3);
    tw_tensor w = TW_TENSOR_2D(weights, TW_F32, 256, 512);
    tw_tensor x = TW_TENSOR_2D(input, TW_F32, 8, 512), y = TW_TENSOR_2D(output, TW_F32, 8, 256);

    tw_context *context = NULL;
    tw_linear *linear = NULL;
    tw_plan_info plan = TW_PLAN_INFO_INIT;
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    desc.N = 256, desc.K = 512;
    if (tw_scheme_parse("w=i4,g=128,s=f16,a=i8", &desc.scheme) ||
        tw_context_create(NULL, &context) ||
        tw_linear_create_from_float(context, &desc, &w, NULL, &linear) ||
        tw_linear_forward(linear, &x, &y) || tw_linear_plan(linear, 8, &plan))
        printf("failed: %s\n", tw_error_message());
    else
        printf("y[0,0] = %g by %s %s (%s)\n", output[0], plan.kernel, plan.config, plan.origin);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    return linear == NULL;
}
