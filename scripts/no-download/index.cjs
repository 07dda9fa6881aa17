// The install script of onnxruntime-node calls this first. To end it here leaves the package as it came from the
// registry, which has all that the CPU needs. Only a checkout has this in its place (package.json, "overrides").
exports.bootstrap = () => process.exit(0);
