"""The example project that the demo, the tests, the benchmarks and the docs share."""
