// `fairgptq solve`: one matrix, from CASE.h5 to RESULT.h5.
#include <fmt/format.h>

#include <cxxopts.hpp>

#include "commands/command.hpp"
#include "commands/options.hpp"
#include "commands/solver_options.hpp"
#include "solver/matrix_case.hpp"

namespace fairgptq::commands {
int solve(int argc, char** argv, Communicator& comm) {
    cxxopts::Options options("fairgptq solve", "Quantize one matrix: W with H and C, or with X, the inputs of pairs");
    options.add_options()                                                                              //
        ("case", "the matrix: an HDF5 file with W, and H and C, or X", cxxopts::value<std::string>())  //
        ("out", "the result, an HDF5 file", cxxopts::value<std::string>())                             //
        ("device", "auto, cpu or cuda", cxxopts::value<std::string>()->default_value("auto"))          //
        ("repeat", "solve so many times, each from the start; the last one's seconds are those of a warm device",
         cxxopts::value<int>()->default_value("1"))  //
        ("h,help", "show this");
    add_solver_options(options);
    options.parse_positional("case");
    options.positional_help("CASE.h5");
    const auto parsed = parse(options, argc, argv);
    if (!parsed) return exit_done;
    if (parsed->count("case") == 0) throw InvalidInput("the case is missing: fairgptq solve CASE.h5 --out RESULT.h5");
    const std::filesystem::path input = (*parsed)["case"].as<std::string>();
    const std::filesystem::path out = required_path(*parsed, "out");
    const SolverSettings settings = read_solver_settings(*parsed);
    const double alpha = read_alpha(*parsed);
    const int repeats = (*parsed)["repeat"].as<int>();
    if (repeats < 1) throw InvalidInput("--repeat is {}; it must be at least 1", repeats);
    check_output(out, {input});

    use_share_of_cores(comm);
    const auto backend = make_backend((*parsed)["device"].as<std::string>());
    const MatrixCase matrix_case = read_case(input, *backend);
    if (alpha > 0 && matrix_case.covariance.empty())
        throw InvalidInput("{} has no C, which the bias term needs; give C, or --alpha 0 for plain GPTQ",
                           input.string());
    resolve_group_size(settings.grid.group_size, matrix_case.cols, input.string() + ":/W");
    ModuleSolution solution;
    for (int repeat = 0; repeat < repeats; ++repeat)
        solution = solve_case(*backend, matrix_case, input.string() + ":/W", alpha, settings);
    write_result(out, solution);
    fmt::print(
        "{} x {} in {:.3f} s, damp {:g}: reconstruction {:.6g}, bias {:.6g} -> {:.6g}, shift {:.3g} of the norm\n",
        solution.rows, solution.cols, solution.seconds, solution.damp_used, solution.reconstruction,
        solution.bias_before, solution.bias_after, solution.shift_norm);
    return exit_done;
}

}  // namespace fairgptq::commands
