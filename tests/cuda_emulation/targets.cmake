# The CUDA backend, compiled by the host's compiler against an emulation of CUDA (emulation.hpp), and the tests of the
# backend's operations and of the solver on it. Where nvcc builds the backend, that is what is tested.
if(FAIRGPTQ_CUDA)
  return()
endif()
set(emulation ${CMAKE_CURRENT_SOURCE_DIR}/cuda_emulation)
file(GLOB emulated_kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/cuda/*.cu ${emulation}/*.cu)
file(GLOB emulated_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/backend/cuda/*.cpp)
set_source_files_properties(${emulated_kernels} PROPERTIES LANGUAGE CXX)
# backend.cpp and NCCL's calls: what knows CUDA goes before the library's.
add_library(cuda_emulation OBJECT ${emulated_kernels} ${emulated_sources} ${PROJECT_SOURCE_DIR}/src/backend/backend.cpp
  ${emulation}/runtime.cpp ${emulation}/fibers.cpp ${emulation}/tensor_core.cpp ${emulation}/tensor_products.cpp
  ${emulation}/blas.cpp ${emulation}/solver.cpp
  ${emulation}/ranges.cpp ${emulation}/nccl.cpp ${PROJECT_SOURCE_DIR}/src/comm/nccl/calls.cpp)
target_link_libraries(cuda_emulation PUBLIC fairgptq_internal)
target_include_directories(cuda_emulation BEFORE PUBLIC ${emulation}/include)
target_include_directories(cuda_emulation PRIVATE ${emulation})
target_compile_definitions(cuda_emulation PUBLIC FAIRGPTQ_CUDA FAIRGPTQ_NVTX)
target_compile_options(cuda_emulation PRIVATE ${FAIRGPTQ_LOOP_OPTIONS})
# nvcc includes the runtime by itself.
set(emulated_kernel_options -D__CUDACC__ -include cuda_runtime.h -Wno-unknown-pragmas -Wno-conversion)
set_source_files_properties(${emulated_kernels} PROPERTIES COMPILE_OPTIONS "${emulated_kernel_options}")
# As nvcc is told (CMakeLists.txt): no product and sum in one rounding but where the source says so.
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/backend/cuda/columns_kernels.cu PROPERTIES
  COMPILE_OPTIONS "${emulated_kernel_options};-ffp-contract=off")
set_source_files_properties(${emulation}/fibers.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
set_source_files_properties(${emulation}/grid_test.cpp PROPERTIES COMPILE_OPTIONS "-Wno-unknown-pragmas")
# Loops that stand for cuBLAS, cuSOLVER and tensor cores should not be what the tests wait for; their operands are checked before.
set_source_files_properties(${emulation}/blas.cpp ${emulation}/solver.cpp PROPERTIES
  COMPILE_OPTIONS "-O3;-fno-trapping-math;-fno-sanitize=all")
set_source_files_properties(${emulation}/tensor_products.cpp PROPERTIES COMPILE_OPTIONS "-O3;-fno-sanitize=all")

file(GLOB emulated_cases CONFIGURE_DEPENDS ${emulation}/*_test.cpp)
add_executable(test_cuda ${emulated_cases} ${backend_cuda_cases} ${comm_cuda_cases} ${model_cuda_cases} ${solver_cuda_cases}
  solver/official_test.cpp
  $<TARGET_OBJECTS:backend_cases>)
target_precompile_headers(test_cuda REUSE_FROM test_headers)
target_compile_definitions(test_cuda PRIVATE FAIRGPTQ_NCCL FAIRGPTQ_SHARED_DIR="${FAIRGPTQ_SHARED_DIR}")
target_link_libraries(test_cuda PRIVATE reference_products cuda_emulation GTest::gtest_main GTest::gtest)
target_include_directories(test_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${emulation})
gtest_discover_tests(test_cuda TEST_PREFIX "cuda_emulation." TEST_FILTER "-*/cpu" DISCOVERY_TIMEOUT 60
  PROPERTIES TIMEOUT 1200 LABELS cuda_emulation ENVIRONMENT "OMP_WAIT_POLICY=passive")

# The whole program on the emulation, for the end-to-end tests of a GPU.
add_executable(fairgptq_emulated ${PROJECT_SOURCE_DIR}/src/main.cpp)
target_link_libraries(fairgptq_emulated PRIVATE cuda_emulation fairgptq_commands)
