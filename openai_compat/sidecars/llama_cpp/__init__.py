"""llama.cpp's own server, in a process for each GGUF model, which the engine starts and the workers call directly."""
