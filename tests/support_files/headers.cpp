// What the tests precompile is named in CMakeLists.txt; a target needs a file.
