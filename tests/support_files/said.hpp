// What the library says to the user while one of these lives.
#pragma once

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <sstream>
#include <string>

namespace fairgptq::testing {

class Said {
  public:
    Said() {
        spdlog::set_default_logger(
            std::make_shared<spdlog::logger>("said", std::make_shared<spdlog::sinks::ostream_sink_mt>(stream_)));
    }
    ~Said() { spdlog::set_default_logger(before_); }
    Said(const Said&) = delete;
    Said& operator=(const Said&) = delete;

    std::string text() const { return stream_.str(); }
    /// Lines with these words in them.
    std::int64_t count(const std::string& words) const {
        std::istringstream lines(text());
        std::int64_t found = 0;
        for (std::string line; std::getline(lines, line);)
            if (line.find(words) != std::string::npos) ++found;
        return found;
    }

  private:
    std::ostringstream stream_;
    std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
};

}  // namespace fairgptq::testing
