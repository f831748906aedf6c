#!/bin/bash
echo "SKIP cusim: it wants clang++ and CUDA's headers (12.4 or newer: tools/fetch-cuda-headers), and a build without another sanitizer"
exit 77
