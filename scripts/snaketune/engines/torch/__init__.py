"""The only room that imports PyTorch, apart from llama.cpp's converter, which is a process of its own.

Models are transformers' classes; adapters, loss, optimizer step and generation are in here. It computes on CUDA, on
Apple's MPS or on the CPU, whichever the process finds first in this order.
"""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# oneDNN, which computes 16-bit products on a CPU, keeps 1024 kernels, one for each shape: half a gigabyte in a training
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
