// Stages that are dealt whole. What a rank solved travels as one piece of memory from device to device; where in it a
// stack's grids are, every rank knows from the stack's modules.
#include <cstring>
#include <memory>
#include <numeric>
#include <string>

#include "comm/together.hpp"
#include "solver/solve.hpp"
#include "solver/stacks.hpp"
#include "support/aligned.hpp"

namespace fairgptq {
namespace {

/// A stack of a dealt stage, as every rank knows it: where its grids are in memory that holds those of all ranks.
/// What lies between aligned parts is never read.
struct DealtStack {
    StackedModules modules;
    std::int64_t rows = 0, cols = 0, groups = 0;

    DealtStack(const StageProblem& problem, StackedModules stack, const SolverSettings& settings)
        : modules(std::move(stack)) {
        const ModuleTask& first = problem.modules[modules.front()];
        cols = first.weights.cols;
        groups = cols / resolve_group_size(settings_of(first, settings).grid.group_size, cols, first.name);
        for (const std::size_t module : modules)
            rows += problem.modules[module].weights.rows;
    }
    std::size_t scale_bytes() const { return aligned(static_cast<std::size_t>(rows * groups) * sizeof(float)); }
    std::size_t code_bytes() const { return aligned(static_cast<std::size_t>(rows * cols)); }
    std::size_t zero_bytes() const { return aligned(static_cast<std::size_t>(rows * groups)); }
    std::size_t bytes() const { return scale_bytes() + code_bytes() + zero_bytes(); }

    /// In the order of GatheredGrids::parts.
    GatheredGrids grids_at(std::byte* begin, const std::shared_ptr<const Buffer>& memory) const {
        GatheredGrids grids;
        grids.memory = {memory};
        grids.scales = {reinterpret_cast<const float*>(begin), rows, groups};
        grids.codes = {reinterpret_cast<const std::uint8_t*>(begin + scale_bytes()), rows, cols};
        grids.zeros = {reinterpret_cast<const std::uint8_t*>(begin + scale_bytes() + code_bytes()), rows, groups};
        return grids;
    }
};

/// What one rank solves, as every rank knows it.
struct DealtStage {
    std::vector<DealtStack> stacks;
    std::size_t bytes = 0;  // of their grids

    DealtStage(const StageProblem& problem, const SolverSettings& settings) {
        for (StackedModules& stack : stacks_of(problem))
            bytes += stacks.emplace_back(problem, std::move(stack), settings).bytes();
    }
};

/// What the rank that solved a module knows of it alone, beside its grids, as bytes.
class Letter {
  public:
    Letter() = default;
    explicit Letter(std::string text) : text_(std::move(text)) {}
    std::string take() { return std::move(text_); }

    void write(const ModuleSolution& solution) {
        for (const auto& [name, member] : module_figures)
            append(std::span(&(solution.*member), 1));
        append(std::span(solution.group_index));
        append(std::span(solution.column_sensitivity));
    }
    void read(ModuleSolution& solution) {
        for (const auto& [name, member] : module_figures)
            extract(std::span(&(solution.*member), 1));
        solution.group_index.resize(static_cast<std::size_t>(solution.cols));
        extract(std::span(solution.group_index));
        solution.column_sensitivity.resize(static_cast<std::size_t>(solution.cols));
        extract(std::span(solution.column_sensitivity));
    }

  private:
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

/// What one rank sends to all.
struct Package {
    Buffer grids;  // on the device
    std::string letter;
};

Package pack(Backend& backend, std::vector<SolvedStack> solved, std::size_t bytes) {
    Package package{backend.allocate(bytes), {}};
    Letter letter;
    std::byte* place = package.grids.as<std::byte>();
    for (SolvedStack& stack : solved) {
        for (const std::span<const std::byte> part : stack.grids.parts()) {
            backend.copy_on_device(place, part.data(), part.size());
            place += aligned(part.size());
        }
        stack.grids = {};
        for (const ModuleSolution& solution : stack.solutions)
            letter.write(solution);
    }
    package.letter = letter.take();
    return package;
}

/// @param grids all ranks' grids; @param begin where this stage's are
std::vector<SolvedStack> unpack(const StageProblem& problem, const DealtStage& stage, const SolverSettings& settings,
                                const std::shared_ptr<const Buffer>& grids, std::byte* begin, std::string text) {
    Letter letter(std::move(text));
    std::vector<SolvedStack> solved;
    for (const DealtStack& stack : stage.stacks) {
        SolvedStack& one = solved.emplace_back();
        one.modules = stack.modules;
        one.grids = stack.grids_at(begin, grids);
        begin += stack.bytes();
        for (const std::size_t index : stack.modules) {
            const ModuleTask& module = problem.modules[index];
            letter.read(one.solutions.emplace_back(record_of(module, settings_of(module, settings))));
        }
    }
    return solved;
}

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
        if (!problems[here].modules.empty()) {
            const auto alone = make_single_rank();
            const auto unshared = make_host_collectives(backend, *alone);
            StageOptions own = options;
            own.keep_target = false;
            mine = solve_stacks(backend, *alone, *unshared, problems[here], settings, own);
        }
        enter(Phase::exchange);  // in which one waits for the others
    });

    std::vector<DealtStage> stages;
    std::vector<std::size_t> bytes;
    for (const StageProblem& problem : problems)
        bytes.push_back(stages.emplace_back(problem, settings).bytes);
    const auto grids =
        std::make_shared<const Buffer>(backend.allocate(std::accumulate(bytes.begin(), bytes.end(), std::size_t{0})));
    const Package package = pack(backend, std::move(mine), bytes[here]);
    const auto through_host = make_host_collectives(backend, comm);
    Exchange exchange(options.collectives != nullptr ? *options.collectives : *through_host);
    exchange.all_gather({package.grids.as<const std::byte>(), package.grids.bytes()},
                        {grids->as<std::byte>(), grids->bytes()}, bytes);
    exchange.finish();
    std::vector<std::string> letters = comm.gather_strings(package.letter);

    enter(Phase::columns);
    RecordCopies at_once(backend);
    RecordCopies* records = options.records != nullptr ? options.records : &at_once;
    std::vector<std::vector<ModuleSolution>> solutions(problems.size());
    std::byte* begin = grids->as<std::byte>();
    for (std::size_t rank = 0; rank < problems.size(); ++rank) {
        std::vector<SolvedStack> solved =
            unpack(problems[rank], stages[rank], settings, grids, begin, std::move(letters[rank]));
        begin += bytes[rank];
        place(backend, problems[rank], std::move(solved), options.keep_grids ? records : nullptr, solutions[rank]);
        at_once.finish(solutions[rank]);
    }
    return solutions;
}

}  // namespace fairgptq
