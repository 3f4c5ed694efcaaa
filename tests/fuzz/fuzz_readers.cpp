// Damages small valid files in ever new ways and reads them: a reader either succeeds or throws InvalidInput. Anything
// else (a crash, another exception, a hang, memory beyond reason) is a bug; the file that shows it stays behind.
//
//   fuzz_readers [--seconds N] [--seed S] [--only tokens|safetensors|config] [--case K]
//
// A case's damage depends on seed and case number alone: `--seed S --case K` does case K again.
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "calibration/tokens.hpp"
#include "fuzz/mutate.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"
#include "support/checksum.hpp"
#include "support/error.hpp"
#include "support/utf8.hpp"
#include "support_files/temporary_folder.hpp"
#include "support_files/token_file.hpp"

namespace {
using namespace fairgptq;
namespace fs = std::filesystem;

constexpr double seconds_per_case = 60;  // of a processor
constexpr unsigned seconds_to_wait =
    900;  // for a case that waits or never ends; a busy machine may stand still for minutes

/// A kind of file: whole ones to start from, and the reader, which is given the folder that holds the damaged one.
struct Target {
    std::string name;
    std::string file;  // the damaged file's name in its folder
    std::vector<std::string> seeds;
    std::function<void(const fs::path& folder)> prepare;  // what else the folder needs
    std::function<void(const fs::path& folder)> read;
};

std::string bytes_of(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

void write(const fs::path& file, const std::string& bytes) {
    std::ofstream(file, std::ios::binary) << bytes;
}

std::vector<std::string> token_files() {
    const testing::TemporaryFolder folder;
    const fs::path file = folder / "tokens.h5";
    std::vector<std::string> seeds;
    testing::write_token_file(file, testing::small_token_file());
    seeds.push_back(bytes_of(file));
    // Without its user block, as other programs write HDF5; HDF5 finds either.
    seeds.push_back(seeds.front().substr(512));
    testing::write_token_file(file, testing::small_token_file(), true);
    seeds.push_back(bytes_of(file));
    return seeds;
}

std::string safetensors(const std::string& header, std::size_t data_bytes) {
    std::string bytes(8, '\0');
    const std::uint64_t length = header.size();
    std::memcpy(bytes.data(), &length, 8);
    return bytes + header + std::string(data_bytes, '\1');
}

std::vector<std::string> safetensors_files() {
    return {
        safetensors(
            R"({"a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})",
            32),
        safetensors(
            R"({"__metadata__":{"format":"pt"},"x":{"dtype":"F16","shape":[],"data_offsets":[0,2]},"empty":{"dtype":"F32","shape":[0,5],"data_offsets":[2,2]}})",
            2),
        safetensors(
            R"({"w":{"dtype":"F8_E4M3","shape":[2,5],"data_offsets":[0,10]},"w_scale_inv":{"dtype":"F32","shape":[1,1],"data_offsets":[10,14]}})",
            14)};
}

std::vector<std::string> index_files() {
    return {
        R"({"metadata":{"total_size":34},"weight_map":{"a.weight":"model-1.safetensors","b":"model-1.safetensors","x":"model-2.safetensors","empty":"model-2.safetensors"}})"};
}

std::vector<std::string> config_files() {
    return {
        R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-5,"hidden_act":"silu","rope_theta":10000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64},"tie_word_embeddings":true,"attention_bias":false,"mlp_bias":false,"torch_dtype":"bfloat16"})",
        R"({"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-6,"hidden_act":"silu","rope_parameters":{"rope_type":"default","rope_theta":1e6},"use_sliding_window":true,"sliding_window":16,"max_window_layers":1,"layer_types":["full_attention","sliding_attention"],"tie_word_embeddings":false,"attention_bias":false,"dtype":"float16"})",
        R"({"architectures":["Phi3ForCausalLM"],"model_type":"phi3","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":8,"num_key_value_heads":4,"vocab_size":100,"max_position_embeddings":128,"original_max_position_embeddings":64,"rms_norm_eps":1e-5,"hidden_act":"silu","sliding_window":16,"rope_theta":10000.0,"rope_scaling":{"type":"longrope","short_factor":[1.0,1.1,1.5,2.0],"long_factor":[4.0,4.0,4.0,4.0]},"torch_dtype":"bfloat16"})",
        R"({"architectures":["Olmo3ForCausalLM"],"model_type":"olmo3","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-6,"hidden_act":"silu","rope_parameters":{"full_attention":{"rope_type":"yarn","factor":4.0,"beta_fast":16.0,"beta_slow":2.0,"mscale":1.0,"mscale_all_dim":0.5,"truncate":false,"attention_factor":1.1,"original_max_position_embeddings":32,"rope_theta":5e5},"sliding_attention":{"rope_type":"default","rope_theta":5e5}},"sliding_window":16,"layer_types":["sliding_attention","full_attention"],"dtype":"bfloat16"})",
        R"({"architectures":["Gemma3ForCausalLM"],"model_type":"gemma3_text","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":1,"head_dim":32,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-6,"hidden_activation":"gelu_pytorch_tanh","query_pre_attn_scalar":32,"sliding_window":16,"sliding_window_pattern":2,"rope_theta":1e6,"rope_local_base_freq":1e4,"rope_scaling":null,"torch_dtype":"float32"})",
        R"({"architectures":["Gemma2ForCausalLM"],"model_type":"gemma2","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-6,"hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh","query_pre_attn_scalar":32,"sliding_window":16,"attn_logit_softcapping":50.0,"final_logit_softcapping":30.0,"rope_theta":10000.0,"torch_dtype":"float32"})",
        R"({"architectures":["SmolLM3ForCausalLM"],"model_type":"smollm3","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":100,"max_position_embeddings":128,"hidden_act":"silu","no_rope_layers":[1,0],"rope_theta":5e6,"dtype":"float16"})",
        R"({"architectures":["Mistral3ForConditionalGeneration"],"model_type":"mistral3","text_config":{"model_type":"ministral3","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-5,"hidden_act":"silu","rope_parameters":{"type":"yarn","factor":16.0,"original_max_position_embeddings":32,"beta_fast":32.0,"beta_slow":1.0,"mscale":1.0,"mscale_all_dim":1.0,"llama_4_scaling_beta":0.1,"rope_theta":1e6},"sliding_window":null,"tie_word_embeddings":true},"vision_config":{"hidden_size":8},"tie_word_embeddings":false,"dtype":"bfloat16"})",
        R"({"architectures":["Qwen2_5_VLForConditionalGeneration"],"model_type":"qwen2_5_vl","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-6,"hidden_act":"silu","rope_theta":1e6,"rope_scaling":{"type":"mrope","mrope_section":[4,2,2]},"use_sliding_window":false,"sliding_window":32,"max_window_layers":2,"vision_config":{"depth":2},"tie_word_embeddings":false,"torch_dtype":"bfloat16"})",
        R"({"architectures":["DeepseekV3ForCausalLM"],"model_type":"deepseek_v3","hidden_size":64,"intermediate_size":128,"moe_intermediate_size":32,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":4,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-6,"hidden_act":"silu","rope_theta":1e4,"rope_scaling":{"type":"yarn","factor":40,"mscale":1.0,"mscale_all_dim":1.0,"original_max_position_embeddings":64},"q_lora_rank":24,"kv_lora_rank":16,"qk_nope_head_dim":16,"qk_rope_head_dim":8,"v_head_dim":16,"n_routed_experts":8,"num_experts_per_tok":2,"n_shared_experts":1,"n_group":4,"topk_group":2,"topk_method":"noaux_tc","scoring_func":"sigmoid","moe_layer_freq":1,"mlp_layer_types":["dense","sparse"],"routed_scaling_factor":2.5,"norm_topk_prob":true,"torch_dtype":"bfloat16"})",
        R"({"architectures":["Glm4MoeForCausalLM"],"model_type":"glm4_moe","hidden_size":64,"intermediate_size":128,"moe_intermediate_size":32,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-5,"hidden_act":"silu","rope_theta":1e6,"partial_rotary_factor":0.5,"n_routed_experts":4,"num_experts_per_tok":2,"n_shared_experts":1,"n_group":1,"topk_group":1,"first_k_dense_replace":1,"routed_scaling_factor":1.5,"norm_topk_prob":true,"use_qk_norm":true,"attention_bias":true,"torch_dtype":"bfloat16"})",
        R"({"architectures":["Ernie4_5_MoeForCausalLM"],"model_type":"ernie4_5_moe","hidden_size":64,"intermediate_size":128,"moe_intermediate_size":32,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-5,"hidden_act":"silu","rope_theta":5e5,"moe_num_experts":4,"moe_k":2,"moe_num_shared_experts":2,"moe_layer_start_index":1,"moe_layer_end_index":1,"moe_layer_interval":1,"moe_norm_min":1e-12,"use_bias":false,"torch_dtype":"bfloat16"})",
        R"({"architectures":["Glm4ForCausalLM"],"model_type":"glm4","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-5,"hidden_act":"silu","rope_theta":1e4,"partial_rotary_factor":0.5,"attention_bias":true,"torch_dtype":"bfloat16"})",
        R"({"architectures":["Qwen2MoeForCausalLM"],"model_type":"qwen2_moe","hidden_size":64,"intermediate_size":128,"moe_intermediate_size":32,"shared_expert_intermediate_size":64,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-6,"hidden_act":"silu","rope_theta":1e6,"num_experts":4,"num_experts_per_tok":2,"decoder_sparse_step":1,"mlp_only_layers":[1],"use_sliding_window":false,"sliding_window":32,"max_window_layers":1,"torch_dtype":"bfloat16"})",
        R"({"architectures":["MixtralForCausalLM"],"model_type":"mixtral","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-5,"hidden_act":"silu","sliding_window":null,"rope_theta":1e6,"num_local_experts":4,"num_experts_per_tok":2,"torch_dtype":"bfloat16"})",
        R"({"architectures":["Qwen3MoeForCausalLM"],"model_type":"qwen3_moe","hidden_size":64,"intermediate_size":128,"moe_intermediate_size":32,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":32,"vocab_size":100,"max_position_embeddings":128,"rms_norm_eps":1e-6,"hidden_act":"silu","rope_theta":1e6,"num_experts":4,"num_experts_per_tok":2,"norm_topk_prob":true,"decoder_sparse_step":1,"mlp_only_layers":[],"attention_bias":false,"use_sliding_window":false,"torch_dtype":"bfloat16"})",
        R"({"architectures":["OPTForCausalLM"],"model_type":"opt","hidden_size":64,"ffn_dim":128,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":100,"max_position_embeddings":128,"activation_function":"relu","do_layer_norm_before":true,"word_embed_proj_dim":64,"enable_bias":true,"layer_norm_elementwise_affine":true,"tie_word_embeddings":true,"torch_dtype":"float16"})",
    };
}

void read_checkpoint(const fs::path& folder) {
    const Checkpoint checkpoint(folder);
    for (const std::string& name : checkpoint.names()) {
        const HostTensor& tensor = checkpoint.tensor(name);
        (void)tensor.hash();  // touches every byte that a tensor claims
        std::vector<std::byte> room;
        if (tensor.scales != nullptr && tensor.dtype() == DType::bfloat16) (void)tensor.values(room);
    }
}

std::vector<Target> targets() {
    const auto nothing = [](const fs::path&) {};
    const auto shards = [](const fs::path& folder) {
        const auto files = safetensors_files();
        write(folder / "model-1.safetensors", files.at(0));
        write(folder / "model-2.safetensors", files.at(1));
    };
    return {
        {"tokens", "tokens.h5", token_files(), nothing,
         [](const fs::path& folder) { check_against_model(read_token_file(folder / "tokens.h5"), 50, 100, folder); }},
        {"safetensors", "model.safetensors", safetensors_files(), nothing, read_checkpoint},
        {"safetensors", "model.safetensors.index.json", index_files(), shards, read_checkpoint},
        {"config", "config.json", config_files(), nothing,
         [](const fs::path& folder) { describe_family(read_config(folder)); }}};
}

/// What a case came to: "" if the file was read, else the sentence.
std::string outcome(const Target& target, const fs::path& folder) {
    try {
        target.read(folder);
        return "";
    } catch (const InvalidInput& error) {
        return error.what();
    }
}

// For the handler of a hang or a crash, which can do little but print.
char current_case[160];

void report_and_die(int signal) {
    const char* what =
        signal == SIGALRM ? "\nfuzz_readers: no end within the time for one case: " : "\nfuzz_readers: crash: ";
    for (const char* text : {what, static_cast<const char*>(current_case)})
        if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) break;
    ::signal(signal == SIGALRM ? SIGABRT : signal, SIG_DFL);
    ::raise(signal == SIGALRM ? SIGABRT : signal);
}

/// Of this process and of the children that it waited for.
double processor_seconds() {
    double seconds = 0;
    for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
        rusage usage{};
        ::getrusage(who, &usage);
        for (const timeval& time : {usage.ru_utime, usage.ru_stime})
            seconds += static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    }
    return seconds;
}

struct Settings {
    double seconds = 10;
    std::uint64_t seed = 1;
    std::string only;
    std::int64_t single_case = -1;
};

Settings parse(int argc, char** argv) {
    Settings settings;
    for (int i = 1; i < argc; i += 2) {
        const std::string_view option = argv[i];
        if (i + 1 == argc) throw InvalidInput("{} needs a value", option);
        if (option == "--seconds")
            settings.seconds = std::stod(argv[i + 1]);
        else if (option == "--seed")
            settings.seed = std::stoull(argv[i + 1]);
        else if (option == "--only")
            settings.only = argv[i + 1];
        else if (option == "--case")
            settings.single_case = std::stoll(argv[i + 1]);
        else
            throw InvalidInput("unknown option {}", option);
    }
    return settings;
}

}  // namespace

int main(int argc, char** argv) {
    const Settings settings = parse(argc, argv);
    std::vector<Target> chosen = targets();
    std::erase_if(chosen, [&](const Target& target) { return !settings.only.empty() && target.name != settings.only; });
    if (chosen.empty()) throw InvalidInput("--only must be tokens, safetensors or config");
    const testing::TemporaryFolder folder;
    fmt::print("files are damaged in {} with seed {}\n", folder.path().string(), settings.seed);
    std::fflush(stdout);
    ::signal(SIGALRM, report_and_die);
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT})
        ::signal(signal, report_and_die);

    for (const Target& target : chosen) {
        fs::create_directories(folder / target.file);
        target.prepare(folder / target.file);
        for (const std::string& seed : target.seeds) {  // a seed that is refused would make every case trivial
            write(folder / target.file / target.file, seed);
            if (const std::string message = outcome(target, folder / target.file); !message.empty())
                throw Failure("an undamaged {} is refused: {}", target.file, message);
        }
    }

    std::map<std::string, std::int64_t> counts;
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    std::int64_t number = settings.single_case >= 0 ? settings.single_case : 0;
    for (; settings.single_case >= 0 ? number == settings.single_case : elapsed() < settings.seconds; ++number) {
        fuzz::Mutator mutate((settings.seed << 40U) + static_cast<std::uint64_t>(number));
        const Target& target = chosen[mutate.below(chosen.size())];
        const std::string bytes = mutate(target.seeds[mutate.below(target.seeds.size())]);
        const fs::path file = folder / target.file / target.file;
        write(file, bytes);
        fmt::format_to_n(current_case, sizeof(current_case) - 1, "{} --seed {} --case {}\n", file.string(),
                         settings.seed, number);
        const double begun = processor_seconds();
        ::alarm(seconds_to_wait);
        try {
            const std::string message = outcome(target, folder / target.file);
            ++counts[target.file + (message.empty() ? " read" : " refused")];
            if (message.find("cannot read it to its end") != std::string::npos)
                ++counts[target.file + " refused for HDF5's sake"];
            // main() makes it one printable line before it is shown.
            if (!is_utf8(message)) throw Failure("a message that is not UTF-8: {}", message);
            if (const double took = processor_seconds() - begun; took > seconds_per_case)
                throw Failure("{:.0f} s of processor time for one file", took);
        } catch (const std::exception& error) {
            ::alarm(0);
            fmt::print(stderr, "fuzz_readers: {}: {}", error.what(), static_cast<const char*>(current_case));
            write(fs::temp_directory_path() / ("fuzz-failure-" + target.file), bytes);
            return 1;
        }
        ::alarm(0);
        std::memset(current_case, 0, sizeof(current_case));
    }
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto own_peak = usage.ru_maxrss / 1024;
    ::getrusage(RUSAGE_CHILDREN, &usage);
    fmt::print("{} cases in {:.0f} s, peak memory {} MiB, of child processes {} MiB\n", number, elapsed(), own_peak,
               usage.ru_maxrss / 1024);
    for (const auto& [what, count] : counts)
        fmt::print("  {:<45} {}\n", what, count);
    return 0;
}
