"""One folder per teacher. A package, so that a foreign one called `examples` on the path does not come first."""
