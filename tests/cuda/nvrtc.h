// What the files of the simulated NVRTC share.
#pragma once
#include <string>
#include <vector>

struct Found {
    std::string name;    // qualified
    std::string threads; // what `__launch_bounds__` says first, or nothing
};

struct Rewritten {
    std::string text;
    std::vector<Found> kernels;
};

// Preprocessed source without CUDA's words, as long in lines as it was.
Rewritten rewrite(const std::string &source);

// A compiler's messages in NVRTC's shape; `source` is the program of that name.
std::string messages(const std::string &printed, const std::string &name, const std::string &source);
