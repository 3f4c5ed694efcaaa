#include "support/say.hpp"

#include <spdlog/spdlog.h>

namespace fairgptq {

void warn_text(const std::string& text) {
    spdlog::warn(text);
}

}  // namespace fairgptq
