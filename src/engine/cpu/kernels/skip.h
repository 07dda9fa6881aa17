// The skip connection of a transcoder, a dense map from inputs to outputs, with the products of
// dense.h; included in the namespace of an instruction set after reconstruct.h.

/// err plane 0 = skip x, each element in the order of the inputs.
static void skipOutputs(Stream& s, const Decode& a) {
  constexpr size_t ROWS = 64;
  const size_t d = a.branch.d, panels = ceilDiv(d, DENSE_COLUMNS);
  float* turned = s.scratch<float>(SKIP_PANELS, panels * DENSE_COLUMNS * a.dIn);
  turnPanels(s, d, a.dIn, [&](size_t o) { return a.skip + o * a.dIn; }, turned);
  s.parallel(ceilDiv(a.branch.B, ROWS), [&](size_t tile, unsigned) {
    const size_t first = tile * ROWS, rows = std::min(ROWS, a.branch.B - first);
    for (size_t panel = 0; panel < panels; panel++) {
      const size_t c = panel * DENSE_COLUMNS, columns = std::min(DENSE_COLUMNS, d - c);
      multiplyRows(rows, a.x + first * a.dIn, a.dIn, 1, turned + c * a.dIn, a.dIn,
                   [&](size_t r, const float* product) {
                     std::copy(product, product + columns, a.branch.err + (first + r) * d + c);
                   });
    }
  });
}
