// Runs a fuzz target on the files that are named, or that lie in the folders that are named: what
// libFuzzer does with its corpus, for compilers without it.

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "fuzz/fuzz.hpp"

namespace {

/// An input that takes longer hangs: SIGALRM then ends the program.
constexpr unsigned seconds_per_input = 30;

bool run(const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
        std::cerr << "cannot read " << file << '\n';
        return false;
    }
    const std::string bytes(std::istreambuf_iterator<char>(stream), {});
    // A crash tells nothing by itself; the last line does.
    std::cout << file.filename().string() << std::endl;
    ::alarm(seconds_per_input);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
    ::alarm(0);
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    std::size_t inputs = 0;
    for (int i = 1; i < argc; ++i) {
        if (!std::filesystem::is_directory(argv[i])) {
            inputs += run(argv[i]) ? 1 : 0;
            continue;
        }
        for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
            inputs += run(entry.path()) ? 1 : 0;
        }
    }
    std::cout << inputs << " inputs\n";
    return inputs == 0 ? 1 : 0;
}
