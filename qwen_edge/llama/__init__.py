"""llama.cpp's C functions behind Python objects that own and free what they hold.

The only folder that imports llama_cpp. Nothing here is thread-safe: one thread of the engine process owns it all.
"""
