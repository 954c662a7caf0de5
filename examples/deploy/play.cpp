// Exported programs (format "aoti") from C++: frames as raw float32, refreshed every second frame.
//
//   g++ -std=c++20 play.cpp -I$T/include -I$T/include/torch/csrc/api/include -L$T/lib -ltorch -ltorch_cpu -lc10 -o play
//   ./play programs/ 16 24 frame0.bin frame1.bin ...      (T: the folder of the torch package; writes frame0.bin.out ...)
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>
#include <fstream>
#include <string>
#include <vector>

torch::Tensor read(const std::string& path, std::vector<int64_t> shape) {
  auto x = torch::empty(shape);
  std::ifstream(path, std::ios::binary).read(static_cast<char*>(x.data_ptr()), x.nbytes());
  return x;
}

int main(int count, char** arguments) {
  torch::NoGradGuard guard;
  const std::string folder = arguments[1];
  const std::vector<int64_t> shape{1, 3, std::stol(arguments[2]), std::stol(arguments[3])};
  torch::inductor::AOTIModelPackageLoader reference(folder + "/reference.aoti.pt2");
  torch::inductor::AOTIModelPackageLoader shortcut(folder + "/shortcut.aoti.pt2");
  std::vector<torch::Tensor> state;  // in the order that shortcutv2v.json lists
  for (int i = 4; i < count; ++i) {
    std::vector<torch::Tensor> given{read(arguments[i], shape)};
    torch::Tensor output;
    if (i % 2 == 0) {
      auto found = reference.run(given);
      output = found[0];
      state.assign(found.begin() + 1, found.end());
    } else {
      given.insert(given.end(), state.begin(), state.end());
      output = shortcut.run(given)[0];
    }
    output = output.contiguous();
    std::ofstream(std::string(arguments[i]) + ".out", std::ios::binary)
        .write(static_cast<const char*>(output.data_ptr()), output.nbytes());
  }
}
