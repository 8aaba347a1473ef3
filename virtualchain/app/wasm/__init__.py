"""Apps whose rules are a WebAssembly module: in any language, and of authors whom nobody has to trust."""
