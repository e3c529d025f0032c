"""The only room that imports llama.cpp (llama-cpp-python)."""
