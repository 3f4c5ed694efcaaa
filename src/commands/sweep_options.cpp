#include "commands/sweep_options.hpp"

#include <algorithm>
#include <string_view>

#include "commands/options.hpp"
#include "support/error.hpp"
#include "support/split.hpp"

namespace fairgptq::commands {

void add_sweep_options(cxxopts::Options& options) {
    options.add_options()  //
        ("alphas", "values of alpha that sweep does in one pass, like 0,0.01,0.1,0.5,1,2",
         cxxopts::value<std::string>());
}

std::vector<double> read_alphas(const cxxopts::ParseResult& parsed) {
    if (parsed.count("alphas") == 0) throw InvalidInput("--alphas is missing, like --alphas 0,0.01,0.1,1");
    if (parsed.count("alpha") > 0) throw InvalidInput("sweep takes its values from --alphas; leave --alpha out");
    const auto& list = parsed["alphas"].as<std::string>();
    std::vector<double> alphas;
    if (list.empty()) throw InvalidInput("--alphas names no number; --alphas 0,0.01,0.1,1 would be four");
    for (const std::string& text : split(list)) {
        const double alpha = read_real(text).value_or(-1);
        if (!(alpha >= 0 && alpha <= 1e6))
            throw InvalidInput("--alphas must be numbers from 0 to 1e6 with commas between, like 0,0.1,1; '{}' is none",
                               text);
        if (std::find(alphas.begin(), alphas.end(), alpha) != alphas.end())
            throw InvalidInput("--alphas has {} twice", alpha);
        alphas.push_back(alpha);
    }
    return alphas;
}

std::vector<AlphaSettings> sweep_settings(const std::vector<double>& alphas, const RunInputs& inputs) {
    if (inputs.settings.inputs == InputsFrom::sequential)
        throw InvalidInput(
            "sweep needs --inputs original: with sequential inputs every alpha's quantized layers change what the "
            "next layers see, so that no statistics could be shared; run quantize once per alpha instead");
    std::vector<AlphaSettings> settings;
    for (const double alpha : alphas) {
        settings.push_back(inputs.settings.alpha);
        settings.back().alpha = alpha;
    }
    return settings;
}

}  // namespace fairgptq::commands
