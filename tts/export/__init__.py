"""Models for other programs: the LM as transformers, vLLM, SGLang and llama.cpp load it, everything as ONNX."""
