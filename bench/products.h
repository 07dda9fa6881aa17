// The matrix products of oneDNN and OpenBLAS; a part of ceilings.cc, in its namespace.

#pragma once

// ---- products: y [M,N] = x [M,K] w [N,K]^T ----

int64_t M, K, N;

std::unique_ptr<float[]> noise(int64_t count) {
  std::unique_ptr<float[]> values(new float[size_t(count)]);
  uint32_t state = 1;
  for (int64_t i = 0; i < count; i++)
    values[size_t(i)] = float(state = state * 1664525u + 1013904223u) * 0x1p-32f - 0.5f;
  return values;
}

#ifdef HAVE_ONEDNN
struct Product {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::unordered_map<int, dnnl::memory> arguments;
  dnnl::matmul matmul;
  std::string name;

  /**
   * Operands of `type`; sums and result in f32 or, for bf16, in whichever of f32 and bf16 was
   * asked.
   */
  Product(dnnl::memory::data_type type, dnnl::memory::data_type result) {
    using dnnl::memory;
    using tag = memory::format_tag;
    const memory::desc xAny({M, K}, type, tag::any), wAny({K, N}, type, tag::any), y({M, N}, result, tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc chosen(engine, xAny, wAny, y);
#else
    const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(xAny, wAny, y), engine);
#endif
    matmul = dnnl::matmul(chosen);
    name = chosen.impl_info_str();
    const auto packed = [&](const memory::desc& from, const memory::desc& to, const float* values) {
      memory plain(from, engine, const_cast<float*>(values)), there(to, engine);
      dnnl::reorder(plain, there).execute(stream, plain, there);
      stream.wait();
      return there;
    };
    const auto x = noise(M * K), w = noise(N * K);
    arguments = {{DNNL_ARG_SRC, packed({{M, K}, memory::data_type::f32, tag::ab}, chosen.src_desc(), x.get())},
                 {DNNL_ARG_WEIGHTS, packed({{K, N}, memory::data_type::f32, tag::ba}, chosen.weights_desc(), w.get())},
                 {DNNL_ARG_DST, memory(chosen.dst_desc(), engine)}};
  }
  void run() {
    matmul.execute(stream, arguments);
    stream.wait();
  }
};

/** The quickest of what it offers: bf16 may write its result in either format. */
std::string oneDnn(const std::string& type) {
  using data_type = dnnl::memory::data_type;
  static std::vector<std::unique_ptr<Product>> f32, bf16;
  auto& all = type == "f32" ? f32 : bf16;
  try {
    if (all.empty()) {
      const data_type operands = type == "f32" ? data_type::f32 : data_type::bf16;
      all.push_back(std::make_unique<Product>(operands, data_type::f32));
      if (type != "f32") all.push_back(std::make_unique<Product>(operands, data_type::bf16));
      for (auto& each : all) each->run();
    }
    std::string best;
    double least = 0;
    for (auto& each : all) {
      const std::string line = timed(2.0 * double(M) * double(K) * double(N), [&] { each->run(); });
      const double ms = atof(line.c_str() + 7);
      if (best.empty() || ms < least)
        best = line.substr(0, line.size() - 1) + ", \"how\": \"" + each->name + "\"}", least = ms;
    }
    return best;
  } catch (const dnnl::error& error) {
    throw Unavailable(std::string("oneDNN refuses this product: ") + error.what());
  }
}
#else
std::string oneDnn(const std::string&) { throw Unavailable("oneDNN (libdnnl-dev) is not installed"); }
#endif

struct OpenBlas {
  using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
  Sgemm sgemm = nullptr;
  std::string config;
  std::unique_ptr<float[]> x, w, y;
  OpenBlas() {
    for (const char* name : {"libopenblas.so.0", "libopenblas.so"}) {
      void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (library == nullptr) continue;
      sgemm = reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
      const auto limit = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"));
      const auto describe = reinterpret_cast<const char* (*)()>(dlsym(library, "openblas_get_config"));
      if (sgemm == nullptr || limit == nullptr) continue;
      limit(threads);
      config = describe == nullptr ? name : describe();
      return;
    }
  }
  void run() {
    constexpr int ROW_MAJOR = 101, AS_IS = 111, TRANSPOSED = 112;
    sgemm(ROW_MAJOR, AS_IS, TRANSPOSED, int(M), int(N), int(K), 1.0f, x.get(), int(K), w.get(), int(K), 0.0f, y.get(),
          int(N));
  }
};

OpenBlas& openBlas() {
  static OpenBlas held;
  return held;
}

std::string blasProduct() {
  OpenBlas& blas = openBlas();
  if (blas.sgemm == nullptr) throw Unavailable("OpenBLAS (libopenblas0) is not installed");
  if (blas.y == nullptr) {
    blas.x = noise(M * K), blas.w = noise(N * K), blas.y = noise(M * N);
    blas.run();
  }
  return timed(2.0 * double(M) * double(K) * double(N), [&] { blas.run(); });
}
