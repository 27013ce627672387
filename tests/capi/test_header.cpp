// The header as C++17 with -Wpedantic: initializers, enums, linkage; a program that runs a layer.
#include <cstdio>
#include <tilewright/model.h>
#include <tilewright/quant.h>
#include <tilewright/tilewright.h>
#include <vector>

namespace {

void drop(void *user, tw_log_level level, const char *line) {
    static_cast<void>(user), static_cast<void>(level), static_cast<void>(line);
}

int run() {
    tw_options options = TW_OPTIONS_INIT;
    options.cache_path = "";
    options.mode = TW_MODE_REFERENCE;
    options.log.write = drop;
    tw_context *context = nullptr;
    tw_linear *linear = nullptr;
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    desc.N = 2, desc.K = 4;
    desc.scheme.weight = TW_F32;
    std::vector<float> weights{1, 2, 3, 4, 5, 6, 7, 8}, input{1, 1, 1, 1}, output(2);
    tw_tensor w = TW_TENSOR_2D(weights.data(), TW_F32, 2, 4);
    tw_tensor x = TW_TENSOR_2D(input.data(), TW_F32, input.size() / 4, std::size_t{4});
    tw_tensor y = TW_TENSOR_2D(output.data(), TW_F32, 1, 2);
    tw_plan_info plan = TW_PLAN_INFO_INIT;
    tw_stats stats = TW_STATS_INIT;
    tw_affine_desc affine = TW_AFFINE_DESC_INIT;
    affine.code = TW_I8;
    affine.N = 2, affine.K = 4;
    float scale = 0;
    tw_device_info device = TW_DEVICE_INFO_INIT;
    bool ok = tw_context_create(&options, &context) == TW_OK &&
              tw_context_device(context, &device) == TW_OK &&
              tw_linear_create(context, &desc, &w, nullptr, nullptr, nullptr, &linear) == TW_OK &&
              tw_linear_forward(linear, &x, &y) == TW_OK &&
              tw_linear_plan(linear, 1, &plan) == TW_OK &&
              tw_choose_qparams(&affine, weights.data(), &scale, nullptr) == TW_OK &&
              tw_context_stats(context, &stats) == TW_OK;
    if (!ok) std::printf("%s\n", tw_error_message());
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    return ok && output[0] == 10 && output[1] == 26 && stats.references == 1 && scale > 0 ? 0 : 1;
}

} // namespace

int main() { return run(); }
