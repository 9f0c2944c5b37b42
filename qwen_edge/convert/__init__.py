"""From a Hugging Face checkpoint to a checked, quantized GGUF file. No torch, no transformers.

hub -> checkpoint -> gguf_file -> quantize -> check -> manifest        (pipeline.py runs them in this order)
"""
