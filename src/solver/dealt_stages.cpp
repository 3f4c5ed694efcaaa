// Stages that are dealt whole. What a rank solved travels as one piece of memory from device to device; where in it a
// stack's grids are, every rank knows from the stack's modules.
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>

#include "comm/together.hpp"
#include "solver/solve.hpp"
#include "solver/stacks.hpp"

namespace fairgptq {
namespace {

constexpr std::size_t alignment = 64;
std::size_t aligned(std::size_t bytes) {
    return (bytes + alignment - 1) / alignment * alignment;
}

/// A stack's grids in memory that holds several: each part is aligned.
struct Shape {
    std::int64_t rows = 0, cols = 0, groups = 0;

    Shape(const StageProblem& problem, const StackedModules& stack, const SolverSettings& settings) {
        const ModuleTask& first = problem.modules[stack.front()];
        cols = first.weights.cols;
        groups = cols / resolve_group_size(settings_of(first, settings).grid.group_size, cols, first.name);
        for (const std::size_t module : stack)
            rows += problem.modules[module].weights.rows;
    }
    std::size_t scale_bytes() const { return aligned(static_cast<std::size_t>(rows * groups) * sizeof(float)); }
    std::size_t code_bytes() const { return aligned(static_cast<std::size_t>(rows * cols)); }
    std::size_t zero_bytes() const { return aligned(static_cast<std::size_t>(rows * groups)); }
    std::size_t bytes() const { return scale_bytes() + code_bytes() + zero_bytes(); }

    /// In the order of GatheredGrids::parts.
    GatheredGrids at(std::byte* place, const std::shared_ptr<const Buffer>& memory) const {
        GatheredGrids grids;
        grids.memory = {memory};
        grids.scales = {reinterpret_cast<const float*>(place), rows, groups};
        grids.codes = {reinterpret_cast<const std::uint8_t*>(place + scale_bytes()), rows, cols};
        grids.zeros = {reinterpret_cast<const std::uint8_t*>(place + scale_bytes() + code_bytes()), rows, groups};
        return grids;
    }
};

/// What the rank that solved a module knows of it alone, beside its grids, as bytes.
class Letter {
  public:
    Letter() = default;
    explicit Letter(std::string text) : text_(std::move(text)) {}
    std::string take() { return std::move(text_); }

    void write(const ModuleSolution& solution) {
        for (const auto member : figures)
            append(std::span(&(solution.*member), 1));
        append(std::span(solution.group_index));
        append(std::span(solution.column_sensitivity));
    }
    void read(ModuleSolution& solution) {
        for (const auto member : figures)
            extract(std::span(&(solution.*member), 1));
        solution.group_index.resize(static_cast<std::size_t>(solution.cols));
        extract(std::span(solution.group_index));
        solution.column_sensitivity.resize(static_cast<std::size_t>(solution.cols));
        extract(std::span(solution.column_sensitivity));
    }

  private:
    static constexpr std::array figures{&ModuleSolution::damp_used,   &ModuleSolution::reconstruction,
                                        &ModuleSolution::bias_before, &ModuleSolution::bias_after,
                                        &ModuleSolution::shift_norm,  &ModuleSolution::seconds};
    template <class T>
    void append(std::span<const T> values) {
        text_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    }
    template <class T>
    void extract(std::span<T> values) {
        if (values.size_bytes() > text_.size() - at_) throw Failure("what a rank says of its solutions ends early");
        std::memcpy(values.data(), text_.data() + at_, values.size_bytes());
        at_ += values.size_bytes();
    }

    std::string text_;
    std::size_t at_ = 0;
};

}  // namespace

std::vector<std::vector<ModuleSolution>> solve_dealt_stages(Backend& backend, Communicator& comm,
                                                            std::span<const StageProblem> problems,
                                                            const SolverSettings& settings,
                                                            const StageOptions& options) {
    const auto enter = [&](Phase phase) {
        if (options.clock != nullptr) options.clock->enter(phase);
    };
    const auto here = static_cast<std::size_t>(comm.rank());
    if (problems.size() != static_cast<std::size_t>(comm.size()))
        throw Failure("{} stages were dealt to {} ranks", problems.size(), comm.size());
    std::vector<SolvedStack> mine;
    together(comm, [&] {
        enter(Phase::exchange);  // in which a rank without modules waits for the others
        if (problems[here].modules.empty()) return;
        const auto alone = make_single_rank();
        const auto unshared = make_host_collectives(backend, *alone);
        StageOptions own = options;
        own.keep_target = false;
        mine = solve_stacks(backend, *alone, *unshared, problems[here], settings, own);
        enter(Phase::exchange);
    });
    enter(Phase::exchange);

    std::vector<std::size_t> sizes;
    for (const StageProblem& problem : problems) {
        std::size_t& bytes = sizes.emplace_back(0);
        for (const StackedModules& stack : stacks_of(problem))
            bytes += Shape(problem, stack, settings).bytes();
    }
    const auto all =
        std::make_shared<const Buffer>(backend.allocate(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0})));
    const Buffer given = backend.allocate(sizes[here]);
    Letter letter;
    std::byte* place_of_part = given.as<std::byte>();
    for (SolvedStack& stack : mine) {
        for (const std::span<const std::byte> part : stack.grids.parts()) {
            backend.copy_on_device(place_of_part, part.data(), part.size());
            place_of_part += aligned(part.size());
        }
        stack.grids = {};
        for (const ModuleSolution& solution : stack.solutions)
            letter.write(solution);
    }
    {
        const auto through_host = make_host_collectives(backend, comm);
        Exchange exchange(options.collectives != nullptr ? *options.collectives : *through_host);
        exchange.all_gather({given.as<const std::byte>(), given.bytes()}, {all->as<std::byte>(), all->bytes()}, sizes);
        exchange.finish();
    }
    const std::vector<std::string> letters = comm.gather_strings(letter.take());

    enter(Phase::columns);
    RecordCopies at_once(backend);
    RecordCopies* records = options.records != nullptr ? options.records : &at_once;
    std::vector<std::vector<ModuleSolution>> solutions(problems.size());
    std::byte* place_of_stack = all->as<std::byte>();
    for (std::size_t rank = 0; rank < problems.size(); ++rank) {
        Letter from(letters[rank]);
        std::vector<SolvedStack> stacks;
        for (const StackedModules& stack : stacks_of(problems[rank])) {
            SolvedStack& solved = stacks.emplace_back();
            const Shape shape(problems[rank], stack, settings);
            solved.modules = stack;
            solved.grids = shape.at(place_of_stack, all);
            place_of_stack += shape.bytes();
            for (const std::size_t index : stack) {
                const ModuleTask& module = problems[rank].modules[index];
                from.read(solved.solutions.emplace_back(record_of(module, settings_of(module, settings))));
            }
        }
        place(backend, problems[rank], std::move(stacks), options.keep_grids ? records : nullptr, solutions[rank]);
        at_once.finish(solutions[rank]);
    }
    return solutions;
}

}  // namespace fairgptq
