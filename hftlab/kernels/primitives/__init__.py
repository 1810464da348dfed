"""What kernels are built from: compiling, bits, wide integers, hash index, histogram, clocks, memory."""
