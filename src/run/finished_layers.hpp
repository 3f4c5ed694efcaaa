// Which of a run's layers are there, and whether they belong together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fairgptq {

/// Layers 0 … n−1 of a run. A file that was lost or damaged leaves a gap. What comes after it is worth as much as
/// before if the layer, done again, gives the next one the same inputs: each names what its own came from
/// (LayerRecord::made_after).
class FinishedLayers {
  public:
    explicit FinishedLayers(std::int64_t layers = 0) : found_(static_cast<std::size_t>(layers)) {}

    std::int64_t layers() const { return static_cast<std::int64_t>(found_.size()); }
    /// Whether there is a whole file of the layer.
    bool is_there(std::int64_t layer) const { return at(layer).has_value(); }
    /// Whether nothing is left to do for the layer: it is there, and the layer that it was made after is, too.
    bool is_done(std::int64_t layer) const;
    bool is_complete() const { return first_missing() == layers(); }
    /// Whether a layer after this one is there.
    bool goes_on_after(std::int64_t layer) const;
    std::int64_t first_missing() const;  // layers() where none is
    std::int64_t count() const;          // of those that are there
    /// Of one that is there; empty: it needs no other.
    const std::string& made_after(std::int64_t layer) const { return at(layer)->made_after; }
    /// Of one that is there; empty: not known yet.
    const std::string& hash(std::int64_t layer) const { return at(layer)->hash; }

    void add(std::int64_t layer, std::string made_after, std::string hash);
    void forget_from(std::int64_t layer);

    /// For other ranks.
    std::string text() const;
    static FinishedLayers from_text(const std::string& text);

  private:
    struct Found {
        std::string made_after, hash;
    };
    const std::optional<Found>& at(std::int64_t layer) const { return found_[static_cast<std::size_t>(layer)]; }
    std::vector<std::optional<Found>> found_;
};

}  // namespace fairgptq
